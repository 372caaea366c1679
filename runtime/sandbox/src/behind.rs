//! A call that waits in a worker behind another one: until it gets the worker, or is taken back.

use std::sync::Arc;
use std::time::Instant;

use cloudserve_protocol::call::{Timings, micros};

use crate::asked::Asked;
use crate::exchange::{Exchange, Held};
use crate::lanes::InLane;
use crate::sandbox::Shared;
use crate::state::Grant;
use crate::worker::Worker;

/// How the wait ended.
pub(crate) enum Waited {
    /// The call is under way.
    Running(Held),
    /// The worker went before the call had begun.
    Again(Box<Asked>),
    /// The call before takes longer than was expected; this one was taken back.
    TooLong(Box<Asked>),
    /// The worker is gone, and the call may have begun.
    Lost,
}

/// Dropping it takes the call back; one that has begun is wound down in order.
pub(crate) struct Behind<'a> {
    shared: &'a Arc<Shared>,
    /// `None` once the wait is over.
    place: Option<(Box<Asked>, InLane)>,
    arrived: Instant,
}

impl<'a> Behind<'a> {
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        asked: Box<Asked>,
        lane: InLane,
        arrived: Instant,
    ) -> Self {
        Self { shared, place: Some((asked, lane)), arrived }
    }

    pub(crate) async fn wait(mut self) -> Waited {
        if self.lane().has_to_flush {
            // Requests that come at the same time leave in one write.
            tokio::task::yield_now().await;
            self.lane().line.flush();
        }
        let granted = (&mut self.lane().granted).await;
        let (arrived, shared) = (self.arrived, self.shared);
        let (asked, lane) = self.take();
        match granted {
            Ok(Grant::Worker(worker)) => {
                Waited::Running(resume(shared, worker, asked, lane.call, arrived))
            }
            Ok(Grant::TooLong) => Waited::TooLong(asked),
            Ok(Grant::Lost) => Waited::Lost,
            _ => Waited::Again(asked),
        }
    }

    fn revoke(&mut self) -> bool {
        let Some((asked, lane)) = &self.place else { return false };
        let (key, owner) = (asked.target.key(), asked.target.owner_id);
        self.shared.with_state(|state, todo| state.revoke(key, owner, lane.worker, lane.call, todo))
    }

    fn lane(&mut self) -> &mut InLane {
        &mut self.place.as_mut().expect("taken only by what consumes self").1
    }

    fn take(&mut self) -> (Box<Asked>, InLane) {
        self.place.take().expect("taken only by what consumes self")
    }
}

impl Drop for Behind<'_> {
    fn drop(&mut self) {
        if let Some((_, lane)) = &self.place
            && lane.has_to_flush
        {
            // Others rely on it.
            lane.line.flush();
        }
        if self.place.is_none() || self.revoke() {
            return;
        }
        let Some((asked, lane)) = self.place.take() else { return };
        let (shared, arrived) = (self.shared.clone(), self.arrived);
        self.shared.runtime.spawn(async move {
            if let Ok(Grant::Worker(worker)) = lane.granted.await {
                resume(&shared, worker, asked, lane.call, arrived).wind_down().await;
            }
        });
    }
}

fn resume(
    shared: &Arc<Shared>,
    worker: Box<Worker>,
    asked: Box<Asked>,
    call: u32,
    arrived: Instant,
) -> Held {
    let now = Instant::now();
    let queue_us = micros(now - arrived);
    let timings = Timings { queue_us, ..Timings::default() };
    Held::new(Exchange::resume(shared, worker, asked, call, now, timings))
}
