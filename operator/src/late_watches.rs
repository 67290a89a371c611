//! A drill: what a watch tells is held back for a while, so that the operator acts on what was. Only builds with the feature `drill`,
//! which no image has, hold it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

/// For how long, in milliseconds; not at all without it.
const LATE: &str = "QUORATE_WATCHES_LATE";

/// What may be on its way at once: more than anything tells in that time. Beyond it watches are later still.
const ON_THE_WAY: usize = 1024;

/// The body of an answer, held back or not.
type Told = UnsyncBoxBody<Bytes, BoxError>;

/// Holds back what watches tell; lists are read as they are, as they are from an API server that has just been started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LateWatches {
    by: Option<Duration>,
}

impl LateWatches {
    /// As the drill wants it.
    pub(crate) fn from_environment() -> LateWatches {
        let by = std::env::var(LATE).ok().map(|text| {
            Duration::from_millis(text.parse().expect("a drill is given milliseconds"))
        });
        LateWatches { by }
    }
}

impl<S> Layer<S> for LateWatches {
    type Service = Late<S>;

    fn layer(&self, inner: S) -> Late<S> {
        Late { inner, by: self.by }
    }
}

/// A client that hears late.
#[derive(Clone, Debug)]
pub(crate) struct Late<S> {
    inner: S,
    by: Option<Duration>,
}

impl<S, B> Service<Request<Body>> for Late<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Response = Response<Told>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Told>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let by = self.by.filter(|_| is_watch(request.uri().query()));
        let answer = self.inner.call(request);
        Box::pin(answer.map_ok(move |answer| {
            answer.map(|body| match by {
                Some(by) => held_back(body, by),
                None => body.map_err(Into::into).boxed_unsync(),
            })
        }))
    }
}

fn is_watch(query: Option<&str>) -> bool {
    let words = query.unwrap_or_default().split('&');
    words.into_iter().any(|word| matches!(word, "watch=true" | "watch=1" | "watch"))
}

/// The same body, each piece of it as much later, and in the same order.
fn held_back<B>(body: B, by: Duration) -> Told
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let pieces = BodyStream::new(body.map_err(Into::into))
        .map(move |piece| tokio::time::sleep(by).map(|()| piece))
        .buffered(ON_THE_WAY);
    StreamBody::new(pieces).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_watches_is_late() {
        assert!(is_watch(Some("&watch=true&resourceVersion=7")));
        assert!(!is_watch(Some("labelSelector=watch%3Dtrue")));
        assert!(!is_watch(None));
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_is_late_by_itself_and_none_is_lost() {
        let began = tokio::time::Instant::now();
        let pieces = futures::stream::iter(["a", "b", "c"])
            .map(|piece| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(piece))));
        let late = held_back(StreamBody::new(pieces), Duration::from_secs(3));
        let whole = late.collect().await.unwrap().to_bytes();
        assert_eq!(whole, "abc");
        assert_eq!(began.elapsed(), Duration::from_secs(3), "not one after the other");
    }
}
