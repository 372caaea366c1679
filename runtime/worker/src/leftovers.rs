//! What calls leave behind: timers that still run, sockets that are still open, operations that
//! have not come to their end. All of it goes on between calls; the owner is told in the log of
//! the call that left it.
//!
//! A call that leaves nothing costs nothing here: the event loop says by itself that it has nothing
//! left to do. What the module itself began while it was loaded is its own affair.

use cloudserve_protocol::call::LogLevel;
use deno_core::JsRuntime;
use deno_core::stats::{RuntimeActivity, RuntimeActivityStatsFilter};

use crate::bridge::Bridge;
use crate::host::Host;

/// Ends of calls that are looked at one by one; later ones only when their number is a power of
/// two, since a module that keeps a connection open leaves something behind every time.
const FIRST_LOOKS: u32 = 32;

/// Resources that hold a socket. Those of `node:net` and what is built upon it are none.
const SOCKETS: [&str; 7] = [
    "tcpStream",
    "tlsStream",
    "unixStream",
    "unixDatagram",
    "udpSocket",
    "nodeUdpSocket",
    "serverWebSocket",
];

/// What is under way in the isolate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct UnderWay {
    timers: usize,
    sockets: usize,
    operations: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// With the module loaded and no call yet.
    before: UnderWay,
    looks: u32,
    /// How many things the owner was told of last.
    told: usize,
}

impl Leftovers {
    /// As the module left it.
    pub(crate) fn loaded(runtime: &mut JsRuntime, bridge: &Bridge) -> Self {
        Self { before: UnderWay::in_isolate(runtime, bridge), looks: 0, told: 0 }
    }

    /// The last call in the isolate is over, and the event loop has something left to do. Tells the
    /// owner when that is twice as much as the last time.
    #[cold]
    pub(crate) fn look(&mut self, host: &Host, runtime: &mut JsRuntime, bridge: &Bridge) {
        self.looks = self.looks.saturating_add(1);
        if self.looks > FIRST_LOOKS && !self.looks.is_power_of_two() {
            return;
        }
        let left = UnderWay::in_isolate(runtime, bridge).since(self.before);
        if left.total() > 0 && left.total() >= self.told * 2 {
            self.told = left.total();
            host.log(LogLevel::Warn, left.warning());
        }
    }
}

impl UnderWay {
    fn in_isolate(runtime: &mut JsRuntime, bridge: &Bridge) -> Self {
        let mut found = Self { sockets: bridge.sockets(runtime), ..Self::default() };
        let filter = RuntimeActivityStatsFilter::all();
        for activity in runtime.runtime_activity_stats_factory().capture(&filter).dump().active {
            match activity {
                RuntimeActivity::Timer(..) | RuntimeActivity::Interval(..) => found.timers += 1,
                RuntimeActivity::AsyncOp(..) => found.operations += 1,
                RuntimeActivity::Resource(_, _, name) => {
                    found.sockets += usize::from(SOCKETS.contains(&name.as_str()));
                }
            }
        }
        found
    }

    fn since(self, before: Self) -> Self {
        Self {
            timers: self.timers.saturating_sub(before.timers),
            sockets: self.sockets.saturating_sub(before.sockets),
            operations: self.operations.saturating_sub(before.operations),
        }
    }

    fn total(self) -> usize {
        self.timers + self.sockets + self.operations
    }

    fn warning(self) -> String {
        let counted =
            [(self.timers, "timer"), (self.sockets, "socket"), (self.operations, "operation")];
        let parts: Vec<String> = counted
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}{}", if *n == 1 { "" } else { "s" }))
            .collect();
        let (last, first) = parts.split_last().map_or(("nothing", &[][..]), |(l, f)| (l, f));
        let list = if first.is_empty() {
            last.to_owned()
        } else {
            format!("{} and {last}", first.join(", "))
        };
        let verb = if self.total() == 1 { "was" } else { "were" };
        format!(
            "{list} {verb} left running when the call was over; nobody waits for that, and it ends \
             with the process: give waitUntil what must be finished"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_names_what_there_is() {
        let warning = |timers, sockets, operations| {
            UnderWay { timers, sockets, operations }.warning().split(';').next().unwrap().to_owned()
        };
        assert_eq!(warning(1, 0, 0), "1 timer was left running when the call was over");
        assert_eq!(
            warning(2, 1, 0),
            "2 timers and 1 socket were left running when the call was over"
        );
        assert_eq!(
            warning(2, 1, 3),
            "2 timers, 1 socket and 3 operations were left running when the call was over"
        );
    }
}
