//! What processes cost, from `/proc`.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};

/// CPU time of a process and of those it started, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// Of the process itself.
    pub(crate) own_us: u64,
    /// Of all below it, those included that have ended.
    pub(crate) children_us: u64,
}

impl CpuTime {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            own_us: self.own_us.saturating_sub(earlier.own_us),
            children_us: self.children_us.saturating_sub(earlier.children_us),
        }
    }

    pub(crate) fn total_us(self) -> u64 {
        self.own_us + self.children_us
    }
}

impl std::ops::AddAssign for CpuTime {
    fn add_assign(&mut self, other: Self) {
        self.own_us += other.own_us;
        self.children_us += other.children_us;
    }
}

struct Stat {
    parent: u32,
    /// User and system time of its own, and of the children it has waited for.
    own_ticks: u64,
    waited_for_ticks: u64,
}

fn stat_of(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_ticks: ticks(11)? + ticks(12)?,
        waited_for_ticks: ticks(13)? + ticks(14)?,
    })
}

/// All processes below this one.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat_of(pid)?.parent)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, p)| *p == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// CPU time up to now.
pub(crate) fn cpu_time(pid: u32) -> CpuTime {
    let per_second =
        sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|n| u64::try_from(n).ok());
    let us_per_tick = 1_000_000 / per_second.unwrap_or(100).max(1);
    let mut time = CpuTime::default();
    if let Some(stat) = stat_of(pid) {
        time.own_us = stat.own_ticks * us_per_tick;
        time.children_us = stat.waited_for_ticks * us_per_tick;
    }
    for stat in descendants(pid).into_iter().filter_map(stat_of) {
        time.children_us += (stat.own_ticks + stat.waited_for_ticks) * us_per_tick;
    }
    time
}

/// CPU time of this thread, which is the client.
pub(crate) fn own_thread_us() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return 0 };
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(us).unwrap_or(0)
}

/// The share of memory that is this process's (PSS), in bytes.
pub(crate) fn pss_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    field_kb(&text, "Pss:")
}

fn field_kb(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kb: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kb * 1024)
}

/// PSS of a process and of all below it.
pub(crate) fn pss_of_tree(pid: u32) -> u64 {
    descendants(pid).into_iter().chain([pid]).filter_map(pss_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_name() {
        let text = "7 (a) b) S) S 3 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.parent, stat.own_ticks, stat.waited_for_ticks), (3, 30, 70));
    }

    #[test]
    fn a_process_has_memory_and_its_thread_has_used_time() {
        assert!(pss_bytes(std::process::id()).unwrap() > 0);
        assert_eq!(field_kb("Rss:  9 kB\nPss:    12 kB\n", "Pss:"), Some(12 * 1024));
        let earlier = CpuTime { own_us: 5, children_us: 7 };
        let later = CpuTime { own_us: 6, children_us: 6 };
        assert_eq!(later.since(earlier), CpuTime { own_us: 1, children_us: 0 });
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(descendants(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
