//! The supervisor's part of a worker's jail. The worker jails itself, before user code; from here
//! come what no process can do for itself: finding out what the platform gives (`platform`),
//! deciding about its network calls (`egress`), having the kernel bound its memory (`cgroup`) and
//! looking at it from outside (`backstop`).

mod backstop;
mod cgroup;
mod egress;
mod platform;

pub(crate) use backstop::Holdings;
pub(crate) use cgroup::{Delegation, Group};
pub(crate) use egress::{Watch, policy, watch};
pub use platform::Platform;
