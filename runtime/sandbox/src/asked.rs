//! A request on its way to a worker.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cloudserve_protocol::call::{Body, Invocation, Outcome, Target};
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::wire::ToWorker;
use tokio::sync::oneshot;

use crate::logs::LogBuffer;
use crate::upload::Upload;

/// Requests with larger bodies are not kept to be sent again: they do not wait in a worker, and fail
/// with it.
const MAX_KEPT_BODY_BYTES: usize = 16 * 1024;

/// See the module.
pub(crate) struct Asked {
    pub(crate) target: Arc<Target>,
    /// When the answer must be complete.
    pub(crate) deadline: Instant,
    /// When it came, or was seen to again: it is sent soon after, and the worker is told what time was
    /// left then.
    pub(crate) seen_at: Instant,
    /// What of the body does not travel with the request.
    pub(crate) upload: Option<Upload>,
    /// The caller asks for a connection; the answer may be 101.
    pub(crate) is_upgrade: bool,
    /// Who is told how the call has ended.
    pub(crate) told: oneshot::Sender<Outcome>,
    /// Its place among the calls of its version, kept wherever it has to wait. None: it has just come.
    pub(crate) ticket: Option<u64>,
    /// Calls of its version that had ended when it first had to wait for a worker.
    pub(crate) ended: Option<u64>,
    /// What was said in a worker that was lost before the call had begun.
    pub(crate) earlier: Option<LogBuffer>,
    frame: ToWorker,
    is_small: bool,
    is_lone: bool,
}

impl Asked {
    pub(crate) fn new(request: Invocation) -> Self {
        let Invocation { execution_id, target, deadline, head, body, told } = request;
        let is_upgrade = matches!(body, Body::Stream(_)) && head.is_upgrade();
        let (body, upload) = Upload::split(body, target.limits.upload_bytes(is_upgrade));
        Self {
            deadline,
            seen_at: Instant::now(),
            is_small: upload.is_none() && body.len() <= MAX_KEPT_BODY_BYTES,
            frame: ToWorker::Request {
                call: 0,
                execution_id,
                budget_ms: 0,
                method: head.method,
                target: head.target,
                headers: head.headers,
                body,
                end: upload.is_none(),
                revocable: false,
                is_lone: false,
            },
            is_lone: false,
            told,
            ticket: None,
            ended: None,
            earlier: None,
            target,
            upload,
            is_upgrade,
        }
    }

    /// Calls come one at a time, and this one should be over in no time: whoever waits for it, or
    /// for the next one, need not sleep.
    pub(crate) fn set_lone(&mut self) {
        self.is_lone = true;
    }

    pub(crate) fn is_lone(&self) -> bool {
        self.is_lone
    }

    /// Whether the request can be sent again, elsewhere.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.is_small
    }

    /// The request has been sent and is not sent again: what it holds is given back.
    pub(crate) fn forget_request(&mut self) {
        if let ToWorker::Request { headers, body, .. } = &mut self.frame {
            *headers = HeaderBlock::default();
            *body = Bytes::new();
        }
    }

    /// The request as it is sent now; `is_offered`: the worker has to claim it.
    pub(crate) fn frame(&mut self, number: u32, is_offered: bool) -> &ToWorker {
        if let ToWorker::Request { call, budget_ms, revocable, is_lone, .. } = &mut self.frame {
            let left = self.deadline.saturating_duration_since(self.seen_at).as_millis();
            *call = number;
            *budget_ms = u32::try_from(left).unwrap_or(u32::MAX).max(1);
            *revocable = is_offered;
            *is_lone = self.is_lone;
        }
        &self.frame
    }
}
