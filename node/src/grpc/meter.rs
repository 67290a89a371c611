//! Counts every call and its messages as they pass, in the body of request and response.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::methods::Method;
use crate::metrics::GrpcMetrics;

/// gRPC's code for a call that the client gave up (Canceled): what is counted when no status was sent.
const CANCELED: usize = 1;

/// Finds message ends in a stream of bytes: each message has a flag, a length of four bytes, and so many bytes.
#[derive(Debug, Default)]
struct Messages {
    /// How much of the prefix was seen.
    prefix: usize,
    /// The length as far as it was seen.
    length: u32,
    /// Bytes of the message that are still to come.
    rest: usize,
}

/// The prefix of a message: one byte of flags and four of length.
const PREFIX: usize = 5;

impl Messages {
    /// Takes more bytes; how many messages they complete.
    fn take(&mut self, mut bytes: &[u8]) -> u64 {
        let mut complete = 0;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.prefix < PREFIX {
                self.length = self.length << 8 | u32::from(first);
                self.prefix += 1;
                bytes = rest;
                if self.prefix < PREFIX {
                    continue;
                }
                // The flags were shifted out by the four bytes of the length.
                self.rest = self.length as usize;
            } else {
                let taken = bytes.len().min(self.rest);
                self.rest -= taken;
                bytes = &bytes[taken..];
            }
            if self.rest == 0 {
                *self = Self::default();
                complete += 1;
            }
        }
        complete
    }
}

/// One call from its start to the end of its response.
#[derive(Debug)]
pub struct Started {
    metrics: Arc<GrpcMetrics>,
    method: &'static Method,
    started: Instant,
    code: Option<usize>,
}

impl Started {
    /// Counts a call.
    #[must_use]
    pub fn new(metrics: Arc<GrpcMetrics>, method: &'static Method) -> Self {
        metrics.of(method.call).started.add(1);
        Self { metrics, method, started: Instant::now(), code: None }
    }

    /// Takes note of the status if it stands in these headers or trailers.
    fn see(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = status.to_str().ok().and_then(|status| status.parse().ok());
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let counts = self.metrics.of(self.method.call);
        counts.handled[self.code.unwrap_or(CANCELED).min(counts.handled.len() - 1)].add(1);
        if self.metrics.extensive {
            counts.handling.observe(self.started.elapsed());
        }
    }
}

/// Which way a body goes.
#[derive(Debug)]
enum Way {
    In(Arc<GrpcMetrics>, &'static Method),
    Out(Started),
    /// Of a call that is not in the table.
    Uncounted,
}

/// A body that counts what passes.
#[derive(Debug)]
pub struct Metered<B> {
    body: B,
    messages: Messages,
    way: Way,
}

impl<B> Metered<B> {
    /// A request's body.
    pub fn request(body: B, metrics: Arc<GrpcMetrics>, method: &'static Method) -> Self {
        Self { body, messages: Messages::default(), way: Way::In(metrics, method) }
    }

    /// A response, whose end is the call's end.
    pub fn response(response: http::Response<B>, mut started: Started) -> http::Response<Self> {
        started.see(response.headers());
        response.map(|body| Self { body, messages: Messages::default(), way: Way::Out(started) })
    }

    /// The response to a call that is not in the table.
    pub fn uncounted(response: http::Response<B>) -> http::Response<Self> {
        response.map(|body| Self { body, messages: Messages::default(), way: Way::Uncounted })
    }

    fn count(&mut self, frame: &Frame<Bytes>) {
        let data = frame.data_ref();
        let bytes = data.map_or(0, |data| data.len() as u64);
        let messages = data.map_or(0, |data| self.messages.take(data));
        match &mut self.way {
            Way::In(metrics, method) => {
                metrics.received_bytes.add(bytes);
                metrics.of(method.call).received.add(messages);
            }
            Way::Out(started) => {
                started.metrics.sent_bytes.add(bytes);
                started.metrics.of(started.method.call).sent.add(messages);
                if let Some(trailers) = frame.trailers_ref() {
                    started.see(trailers);
                }
            }
            Way::Uncounted => {}
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.count(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.extend(vec![0xff; length]);
        bytes
    }

    #[test]
    fn messages_are_counted_however_the_bytes_are_cut() {
        let sizes = [0, 1, 300, 0, 70_000, 5];
        let bytes: Vec<u8> = sizes.iter().flat_map(|size| message(*size)).collect();
        for cut in [1, 2, 3, 4, 5, 6, 7, 1000, bytes.len()] {
            let mut messages = Messages::default();
            let complete: u64 = bytes.chunks(cut).map(|chunk| messages.take(chunk)).sum();
            assert_eq!(complete, sizes.len() as u64, "cut every {cut}");
            assert_eq!((messages.prefix, messages.rest), (0, 0));
        }
        let mut messages = Messages::default();
        assert_eq!(messages.take(&message(10)[..14]), 0, "one byte short");
        assert_eq!(messages.take(&[0]), 1);
    }
}
