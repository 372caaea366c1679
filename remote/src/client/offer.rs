//! A call on its way to a node that has not said yet that it takes it.
//!
//! It may have begun by then: whoever gives it up waits for that word elsewhere, for a bounded time, and
//! then gives up a call that was taken, which says what it has used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::Method;
use hyper::body::Incoming;
use hyper_util::client::legacy::ResponseFuture;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::NotTaken;
use super::answer::Call;
use super::upload::Upload;
use crate::message::INVOKE;
use crate::options::millis;

/// See the module. Dropping it gives the call up.
pub(super) struct Offer<'a> {
    /// `None` once the node has said something, or the call was given up.
    asked: Option<(Call, ResponseFuture)>,
    /// Whether the node may have any of it.
    sent: &'a AtomicBool,
}

impl<'a> Offer<'a> {
    pub(super) fn make(call: Call, upload: Upload, sent: &'a Arc<AtomicBool>) -> Self {
        let (shared, address) = (&call.shared, call.node.address);
        let request = shared.request(Method::POST, address, INVOKE, upload.telling(sent));
        let answer = shared.http.request(request);
        Self { asked: Some((call, answer)), sent }
    }

    /// Waits for the word of the node. What it answers is still to be read.
    pub(super) async fn taken(mut self) -> (Call, Result<Incoming, NotTaken>) {
        let (call, answer) = self.asked.as_mut().expect("taken only by what consumes self");
        let body = call.shared.answered(&call.node, answer).await;
        if body.is_ok() {
            call.node.took();
        }
        let (call, _) = self.asked.take().expect("taken only by what consumes self");
        (call, body)
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        let Some((call, mut answer)) = self.asked.take() else { return };
        if !self.sent.load(Relaxed) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let longest = millis(call.shared.options.cancel_wait_ms);
            let answered = call.shared.answered(&call.node, &mut answer);
            if let Ok(Ok(body)) = timeout(longest, answered).await {
                call.node.took();
                call.give_up(body);
            }
        });
    }
}
