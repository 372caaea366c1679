//! Time to the microsecond: tokio's timers tick in milliseconds, and an open load of 20 000 calls
//! per second has an arrival every 50 µs.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use tokio::io::unix::AsyncFd;

/// Where time comes from. Tests bring one that passes when they say so.
pub(crate) trait Clock {
    type Sleeper: Sleeper;

    /// Nanoseconds since some instant in the past.
    fn now(&self) -> u64;

    /// Something to wait with. Holds a file descriptor.
    fn sleeper(&self) -> io::Result<Self::Sleeper>;
}

/// Waits until an instant of its clock.
pub(crate) trait Sleeper {
    /// Returns when the clock shows at least `at`.
    async fn until(&mut self, at: u64);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RealClock {
    epoch: Instant,
}

impl RealClock {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now() }
    }
}

impl Clock for RealClock {
    type Sleeper = TimerFd;

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn sleeper(&self) -> io::Result<TimerFd> {
        // SAFETY: no memory is passed; the result is checked.
        let fd = unsafe {
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the descriptor stays in the `AsyncFd` and is not replaced.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(TimerFd { fd, clock: *self })
    }
}

/// A timer of the kernel, with its own descriptor in the runtime's epoll.
pub(crate) struct TimerFd {
    fd: AsyncFd<OwnedFd>,
    clock: RealClock,
}

impl TimerFd {
    fn arm(&self, after_ns: u64) {
        let spec = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: (after_ns / 1_000_000_000).cast_signed(),
                tv_nsec: (after_ns % 1_000_000_000).cast_signed(),
            },
        };
        // SAFETY: `spec` lives through the call, and no old value is asked for.
        unsafe {
            libc::timerfd_settime(self.fd.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut())
        };
    }
}

impl Sleeper for TimerFd {
    async fn until(&mut self, at: u64) {
        loop {
            let left = at.saturating_sub(self.clock.now());
            if left == 0 {
                return;
            }
            self.arm(left);
            // An error means that there is no runtime any more, and nobody to wait.
            let Ok(mut ready) = self.fd.readable().await else { return };
            // Arming again clears what the timer had to say; no read is needed.
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_after_its_instant_again_and_again() {
        let clock = RealClock::new();
        let mut sleeper = clock.sleeper().unwrap();
        for _ in 0..5 {
            let at = clock.now() + 200_000;
            sleeper.until(at).await;
            assert!(clock.now() >= at);
        }
        sleeper.until(0).await;
    }
}
