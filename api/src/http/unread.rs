//! Bodies that nobody reads, or not to their end: a request may be refused for its head alone. A
//! connection that is closed while its client still sends is reset, and a client that sends all
//! before it reads would never see the refusal. So what is left is read and thrown away, within
//! bounds, away from the answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::Handle;

const MAX_DISCARDED_BYTES: usize = 128 * 1024 * 1024;
const MAX_DISCARDING: Duration = Duration::from_secs(2);

/// The same request, whose body is discarded by whoever drops it.
pub(super) fn discarded(request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let waits_to_be_asked = request.headers().contains_key(EXPECT);
    request.map(|body| Body::new(Discarded { body: Some(body), waits_to_be_asked }))
}

struct Discarded {
    /// `None` after its end.
    body: Option<Body>,
    /// The client sends nothing before it is asked to, and reading is asking.
    waits_to_be_asked: bool,
}

impl HttpBody for Discarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        this.waits_to_be_asked = false;
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            this.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Discarded {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if self.waits_to_be_asked || body.is_end_stream() {
            return;
        }
        // Without a runtime there is no connection left, either.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(tokio::time::timeout(MAX_DISCARDING, discard(body)));
        }
    }
}

async fn discard(mut body: Body) {
    let mut left = MAX_DISCARDED_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => return,
        }
    }
}
