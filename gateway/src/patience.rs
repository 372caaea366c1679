//! How long a connection is waited for: by hyper for the head of each request, by us for the answer
//! of each call. Both are reached hardly ever, and wake the same task.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cloudserve_protocol::alarm::Alarm;
use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;

/// The alarm of one connection, or of one request where the connection is not known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patience(Arc<Mutex<Alarm>>);

impl Patience {
    /// Ready when the deadline has passed.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        self.0.lock().poll(cx, deadline)
    }
}

impl Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until { deadline, patience: self.clone() })
    }
}

struct Until {
    deadline: Instant,
    patience: Patience,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.patience.poll(cx, self.deadline)
    }
}

impl Sleep for Until {}
