//! What the figures were taken on and of.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::sysinfo::sysinfo;
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    /// Processes that wanted to run in the minute before: 0 on a quiet machine.
    pub(crate) load_before: f64,
    /// Part of the processors' time during the run that a hypervisor gave to other machines.
    #[serde(default)]
    pub(crate) stolen: f64,
}

/// The processors' time so far, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessorTime {
    all: u64,
    stolen: u64,
}

impl ProcessorTime {
    pub(crate) fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default()).unwrap_or_default()
    }

    /// `cpu  user nice system idle iowait irq softirq steal ...`
    fn parse(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = fields.take(8).map_while(|field| field.parse().ok()).collect();
        Some(Self { all: ticks.iter().sum(), stolen: *ticks.get(7)? })
    }

    /// The part that was stolen since then.
    pub(crate) fn stolen_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

impl Machine {
    /// This one, now.
    pub(crate) fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            kernel: uname()
                .map(|name| name.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            cpu: cpu_of(&cpuinfo).unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: sysinfo().map_or(0, |info| info.ram_total()),
            load_before: load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default(),
            stolen: 0.0,
        }
    }
}

fn cpu_of(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// The commit of a checkout, and whether there are changes beside it.
pub(crate) fn commit(checkout: &Path) -> (String, bool) {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(checkout).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let dirty = git(&["status", "--porcelain"]).is_some_and(|text| !text.is_empty());
    (commit, dirty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_cores_and_memory() {
        let machine = Machine::look();
        assert!(machine.cores > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty());
        assert_eq!(cpu_of("x: 1\nmodel name\t: A CPU\n"), Some("A CPU"));
    }

    #[test]
    fn what_is_stolen_is_a_part_of_all() {
        let before = ProcessorTime::parse("cpu  10 0 10 60 0 0 0 20 5 5\ncpu0 1\n").unwrap();
        let after = ProcessorTime::parse("cpu  60 0 10 80 0 0 0 50 5 5\n").unwrap();
        assert!((after.stolen_since(before) - 0.3).abs() < 1e-9);
        assert_eq!(ProcessorTime::parse("intr 1"), None);
        assert!(ProcessorTime::now().all > 0);
    }
}
