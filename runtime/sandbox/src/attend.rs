//! What a worker may say while it is in no call: late log lines, and once V8's code cache.
//!
//! Others wait for the lock meanwhile, so only some of it is taken in at once. And whoever writes
//! frames has less to do than whoever reads them, so that they are bounded besides.

use std::task::Poll;

use cloudserve_protocol::wire::FromWorker;
use tracing::warn;

use crate::death::DeathCause;
use crate::worker::{ChannelError, Worker};

/// Frames, and bytes of them, that are taken in before others get their turn.
pub(crate) const FRAMES_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 256 * 1024;

/// Frames of one rest, and their bytes: more than there are in the largest log.
const MAX_FRAMES_AT_REST: u32 = 64 * 1024;
const MAX_BYTES_AT_REST: usize = 64 * 1024 * 1024;

/// Whether a worker that was attended to can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Attended {
    /// It waits, and its keeper is told when it has something to say.
    Alive,
    /// It has closed its socket or has to go.
    Gone,
}

impl Attended {
    pub(crate) fn is_alive(self) -> bool {
        self == Self::Alive
    }
}

/// Takes in what the worker has said and leaves its socket to its keeper, who looks again if there
/// is more.
pub(crate) fn attend(worker: &mut Worker) -> Attended {
    let before = worker.bytes_at_rest;
    for _ in 0..FRAMES_AT_ONCE {
        if worker.bytes_at_rest - before >= BYTES_AT_ONCE {
            break;
        }
        let violation = match worker.poll_while_waiting() {
            Poll::Pending => return Attended::Alive,
            Poll::Ready(Ok(frame)) => {
                worker.frames_at_rest += 1;
                match aside(worker, frame) {
                    None if worker.frames_at_rest > MAX_FRAMES_AT_REST => {
                        format!("more than {MAX_FRAMES_AT_REST} frames outside of a call")
                    }
                    None if worker.bytes_at_rest > MAX_BYTES_AT_REST => {
                        format!("more than {MAX_BYTES_AT_REST} bytes outside of a call")
                    }
                    None => continue,
                    Some(_) => "a frame of a call outside of one".to_owned(),
                }
            }
            Poll::Ready(Err(error)) if error.is_violation() => error.to_string(),
            Poll::Ready(Err(ChannelError::Closed | _)) => return Attended::Gone,
        };
        warn!(worker = worker.process.id, violation, "worker broke the protocol");
        worker.process.kill(DeathCause::ProtocolViolation);
        return Attended::Gone;
    }
    worker.process.stirred.notify_one();
    Attended::Alive
}

/// Deals with a frame that belongs to no call; gives back any other.
pub(crate) fn aside(worker: &mut Worker, frame: FromWorker) -> Option<FromWorker> {
    match frame {
        FromWorker::Log { level, timestamp_ms, message, .. } => {
            worker.process.pipes.push(level, timestamp_ms, message);
            None
        }
        // A body that nobody reads any more was granted more credit.
        FromWorker::Credit { .. } => None,
        FromWorker::CodeCache(bytes) => {
            worker.take_code_cache(bytes).err().map(FromWorker::CodeCache)
        }
        other => Some(other),
    }
}
