//! Frames on a peer connection: a length, a checksum, a payload.

use anyhow::{Context, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A frame's payload may be no longer: an append of the largest request with room to spare. More means that the
/// stream is not what it should be.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// Length and checksum.
const HEADER_BYTES: usize = 8;

/// How much is read from the socket at once.
const READ_BYTES: usize = 256 << 10;

/// Appends a frame whose payload `write` appends.
pub fn put(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u64_le(0);
    write(out);
    let payload = &out[start + HEADER_BYTES..];
    let length = u32::try_from(payload.len()).expect("frames are far smaller than 4 GiB");
    let checksum = crc32c::crc32c(payload);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads frames from a connection.
#[derive(Debug)]
pub struct FrameReader<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + Unpin> FrameReader<S> {
    /// Reads what follows on this stream.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame's payload; none when the other side closed between frames.
    ///
    /// # Errors
    /// The connection failed or was cut within a frame, the checksum is wrong, or the length is beyond the bound.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_BYTES);
            let read = self.stream.read_buf(&mut self.buffer).await.context("read from peer")?;
            if read == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                bail!("the peer's connection was cut within a frame");
            }
        }
    }

    /// A whole frame that is in the buffer already.
    pub fn take(&mut self) -> anyhow::Result<Option<Bytes>> {
        if self.buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let mut header = &self.buffer[..HEADER_BYTES];
        let length = header.get_u32_le() as usize;
        let checksum = header.get_u32_le();
        if length > FRAME_BYTES_MAX {
            bail!(
                "a peer announced a frame of {length} bytes, above the bound of {FRAME_BYTES_MAX}"
            );
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let payload = self.buffer.split_to(length).freeze();
        if crc32c::crc32c(&payload) != checksum {
            bail!("a peer's frame of {length} bytes was damaged on its way");
        }
        Ok(Some(payload))
    }

    /// The stream, for an answer.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_frames() -> BytesMut {
        let mut out = BytesMut::new();
        put(&mut out, |out| out.put_slice(b"first"));
        put(&mut out, |out| out.put_slice(b""));
        out
    }

    #[tokio::test]
    async fn frames_come_back_in_order_and_then_the_end() {
        let bytes = two_frames();
        let mut reader = FrameReader::new(&bytes[..]);
        assert_eq!(reader.next().await.unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(reader.next().await.unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_flipped_bit_and_a_cut_are_noticed() {
        let mut damaged = two_frames();
        damaged[9] ^= 1;
        assert!(FrameReader::new(&damaged[..]).next().await.is_err());
        let cut = two_frames();
        assert!(FrameReader::new(&cut[..10]).next().await.is_err());
        let mut huge = two_frames();
        huge[3] = 0xff;
        assert!(FrameReader::new(&huge[..]).next().await.is_err());
    }
}
