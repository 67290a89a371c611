//! The codec between frames and messages: requests by prost, replies by [`Encode`].

use std::marker::PhantomData;

use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::wire::Encode;

/// Requests of one type in, replies of another out.
#[derive(Debug)]
pub struct EtcdCodec<Q, R>(PhantomData<fn(Q) -> R>);

impl<Q, R> Default for EtcdCodec<Q, R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// Writes replies.
#[derive(Debug)]
pub struct ReplyEncoder<R>(PhantomData<fn(R)>);

/// Reads requests.
#[derive(Debug)]
pub struct RequestDecoder<Q>(PhantomData<fn() -> Q>);

impl<Q, R> Codec for EtcdCodec<Q, R>
where
    Q: prost::Message + Default + 'static,
    R: Encode,
{
    type Encode = R;
    type Decode = Q;
    type Encoder = ReplyEncoder<R>;
    type Decoder = RequestDecoder<Q>;

    fn encoder(&mut self) -> Self::Encoder {
        ReplyEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder(PhantomData)
    }
}

impl<R: Encode> Encoder for ReplyEncoder<R> {
    type Item = R;
    type Error = Status;

    fn encode(&mut self, item: R, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // One growth to the exact size, instead of doubling under a large range.
        out.reserve(item.encoded_len());
        item.encode(out);
        Ok(())
    }
}

impl<Q: prost::Message + Default> Decoder for RequestDecoder<Q> {
    type Item = Q;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Q>, Status> {
        // Bytes fields are slices of the frame: no key and no value is copied.
        Q::decode(frame)
            .map(Some)
            .map_err(|error| Status::internal(format!("the request cannot be decoded: {error}")))
    }
}
