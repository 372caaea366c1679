//! One worker process, seen from here.
//!
//! A [`Worker`] is the control socket. It has exactly one owner at any time: the pool while it is
//! READY, the scheduler while it is idle, an exchange while it is in a call. The owner reads the
//! socket, nobody else does. A [`Process`] is what outlives that ownership: the process, its
//! pipes, what it was given and why it ended. Its keeper ([`crate::keeper`]) and the owner share
//! it.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use cloudserve_artifacts::VersionLease;
use cloudserve_channel::Channel;
use cloudserve_protocol::alarm::Alarm;
use cloudserve_protocol::call::{HandlerKind, Target, VersionKey};
use cloudserve_protocol::wire::{
    Announced, FromWorker, Holds, MAX_CODE_CACHE_BYTES, ToWorker, WireError,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};

use crate::code_cache::{CodeCaches, called};
use crate::cpu::CpuTime;
use crate::death::{DeathCause, ExitReport};
use crate::jail::{Group, Holdings};
use crate::line::Line;
use crate::logs::LogBuffer;
use crate::pidfd;
use crate::pipes::Pipes;
use crate::room::{COUNTED_BYTES, Room, Rooms};

/// Room for one read. Most answers fit into one.
const READ_BYTES: usize = 32 * 1024;

/// The buffer is used up to this rest before the next one is made.
const MIN_READ_BYTES: usize = 4 * 1024;

/// Buffers above this size are given back when a worker goes idle.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// Why a worker's socket is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("the control socket was closed")]
    Closed,
    #[error("the control socket failed")]
    Io(#[from] io::Error),
    #[error("the worker sent a bad frame")]
    Wire(#[from] WireError),
    #[error("the worker sent a frame of {0} bytes, more than it may")]
    FrameTooLarge(usize),
}

impl ChannelError {
    /// Whether the worker is to blame, and not merely gone.
    pub(crate) fn is_violation(&self) -> bool {
        matches!(self, Self::Wire(_) | Self::FrameTooLarge(_))
    }
}

/// What a worker holds on disk for as long as its process lives.
pub(crate) struct Belongings {
    /// Its own directory.
    pub(crate) tmp: TempDir,
    pub(crate) version: Option<VersionLease>,
}

/// The process of a worker.
pub(crate) struct Process {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pidfd: OwnedFd,
    pub(crate) pipes: Pipes,
    /// The socket of a worker that waits has something to read.
    pub(crate) stirred: Notify,
    /// The process was told to end by itself.
    pub(crate) dismissed: Notify,
    /// What it was assigned to, if it was.
    pub(crate) key: OnceLock<VersionKey>,
    /// The memory limit of its function.
    pub(crate) memory_mb: OnceLock<u32>,
    pub(crate) belongings: Mutex<Option<Belongings>>,
    /// What bounds its memory, where the platform has that.
    pub(crate) group: Option<Group>,
    cause: OnceLock<DeathCause>,
    overstayed: AtomicBool,
    is_worn: AtomicBool,
    pub(crate) cpu: CpuTime,
    exit: watch::Sender<Option<Arc<ExitReport>>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} (pid {})", self.id, self.pid)
    }
}

/// The waker under which a waiting worker's socket is registered: its keeper looks after it.
impl Wake for Process {
    fn wake(self: Arc<Self>) {
        self.stirred.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.stirred.notify_one();
    }
}

impl Process {
    pub(crate) fn new(
        id: u64,
        pid: u32,
        pidfd: OwnedFd,
        pipes: Pipes,
        group: Option<Group>,
    ) -> Self {
        Self {
            id,
            pid,
            pidfd,
            pipes,
            group,
            stirred: Notify::new(),
            dismissed: Notify::new(),
            key: OnceLock::new(),
            memory_mb: OnceLock::new(),
            belongings: Mutex::new(None),
            cause: OnceLock::new(),
            overstayed: AtomicBool::new(false),
            is_worn: AtomicBool::new(false),
            cpu: CpuTime::default(),
            exit: watch::Sender::new(None),
        }
    }

    /// Ends the process now. The first cause stands.
    pub(crate) fn kill(&self, cause: DeathCause) {
        let _ = self.cause.set(cause);
        self.send_kill();
    }

    /// Ends a process that should have ended by itself. If it just has, its own exit counts.
    pub(crate) fn kill_overstayed(&self) {
        self.overstayed.store(true, Ordering::Relaxed);
        self.send_kill();
    }

    fn send_kill(&self) {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a plain system call on a descriptor we own. It fails only when the process has
        // ended already, which is as well.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGKILL,
                no_info,
                0,
            );
        }
    }

    /// It holds more than its function counts: it is to go when it has no call.
    pub(crate) fn wear_out(&self) {
        self.is_worn.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_worn(&self) -> bool {
        self.is_worn.load(Ordering::Relaxed)
    }

    /// Why it is to go, if it is. Asked while it has no call.
    pub(crate) fn reason_to_go(&self) -> Option<DeathCause> {
        if self.is_worn() {
            return Some(DeathCause::Recycled);
        }
        self.cpu.is_overdrawn().then_some(DeathCause::CpuLimit)
    }

    /// CPU time that it has used; 0 when it is gone.
    fn look_at_cpu_ms(&self) -> u64 {
        Holdings::of(self.pid).map_or(0, |holdings| holdings.cpu_ms)
    }

    /// One of its descriptors, as one of ours.
    pub(crate) fn take_descriptor(&self, fd: RawFd) -> io::Result<OwnedFd> {
        pidfd::take_descriptor(&self.pidfd, fd)
    }

    /// The cause it was ended for, if somebody ended it.
    pub(crate) fn cause(&self) -> Option<DeathCause> {
        self.cause.get().copied()
    }

    /// What there is to say of an exit with this status.
    pub(crate) fn explain(&self, status: Option<ExitStatus>) -> ExitReport {
        let was_killed = status.is_some_and(|status| status.signal() == Some(libc::SIGKILL));
        let overstayed = was_killed && self.overstayed.load(Ordering::Relaxed);
        let outgrew = was_killed && self.group.as_ref().is_some_and(Group::was_out_of_memory);
        let cause = self
            .cause()
            .or(outgrew.then_some(DeathCause::Oom))
            .or(overstayed.then_some(DeathCause::ProtocolViolation));
        ExitReport::new(status, self.pipes.last_words(), cause)
    }

    pub(crate) fn report_exit(&self, report: Arc<ExitReport>) {
        self.exit.send_replace(Some(report));
    }

    /// Whether it is known how the process ended.
    pub(crate) fn has_exited(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// How the process ended, if it has after `patience`.
    pub(crate) async fn gone_within(&self, patience: Duration) -> Option<Arc<ExitReport>> {
        let mut exit = self.exit.subscribe();
        let ended = tokio::time::timeout(patience, exit.wait_for(Option::is_some)).await;
        ended.ok()?.ok()?.clone()
    }

    /// How the process ended. One that has not after `patience` is killed.
    pub(crate) async fn exited(&self, patience: Duration) -> Arc<ExitReport> {
        if let Some(report) = self.gone_within(patience).await {
            return report;
        }
        self.kill_overstayed();
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await.map(|report| report.clone()) {
            Ok(Some(report)) => report,
            // The keeper is gone without a report: the runtime is being shut down.
            _ => Arc::new(ExitReport::new(None, String::new(), Some(DeathCause::Drained))),
        }
    }
}

/// What a worker has become.
pub(crate) struct Assigned {
    pub(crate) target: Arc<Target>,
    /// See [`crate::state`].
    pub(crate) generation: u32,
    pub(crate) begun_at: Instant,
    pub(crate) loaded_at: Option<Instant>,
    /// How its handler is called, once it is loaded.
    pub(crate) handler: Option<HandlerKind>,
    /// What the module wrote while it was loaded, until somebody is told.
    pub(crate) load_log: Option<LogBuffer>,
    pub(crate) calls: u32,
    pub(crate) idle_since: Instant,
    /// An `idle_since`, and the CPU time it had used when it was first looked at after it.
    pub(crate) at_rest: Option<(Instant, u64)>,
    /// Where its code caches go, and how many more it may send.
    pub(crate) code_caches: (CodeCaches, u8),
    /// The one that it was given was made before any call.
    pub(crate) code_cache_is_early: bool,
    /// Where its large answers find some.
    pub(crate) rooms: Arc<Rooms>,
}

/// The largest frames that a worker may send in its present state, but for code caches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    /// An answer, or its beginning, with its head. In no call there is none.
    pub(crate) answer_bytes: usize,
    /// A line of its log, a piece of an answer, and what else it says.
    pub(crate) text_bytes: usize,
}

/// The control socket of a worker.
pub(crate) struct Worker {
    pub(crate) process: Arc<Process>,
    pub(crate) code_cache_tag: String,
    pub(crate) assigned: Option<Assigned>,
    pub(crate) frame_limits: FrameLimits,
    /// Frames that it has sent since it became idle.
    pub(crate) frames_at_rest: u32,
    /// Their bytes, without code caches.
    pub(crate) bytes_at_rest: usize,
    pub(crate) line: Arc<Line>,
    /// When the call in it is overdue.
    pub(crate) alarm: Alarm,
    channel: Arc<Channel>,
    incoming: BytesMut,
    /// That of the answer which it is sending.
    room: Option<Room>,
    /// Of that answer, if it came and found none.
    wait: Option<Wait>,
    waiting: Waker,
}

/// A wait for room.
#[derive(Debug, Clone, Copy)]
struct Wait {
    since: Instant,
    /// CPU time that the process had used by then.
    cpu_ms: u64,
}

/// Workers that wait. Boxed: they are passed on with every call.
pub(crate) type Parked = Vec<Box<Worker>>;

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.process.fmt(f)
    }
}

impl Worker {
    pub(crate) fn new(process: Arc<Process>, channel: Channel) -> Self {
        let channel = Arc::new(channel);
        Self {
            waiting: Waker::from(process.clone()),
            process,
            code_cache_tag: String::new(),
            assigned: None,
            frame_limits: FrameLimits { answer_bytes: READ_BYTES, text_bytes: READ_BYTES },
            frames_at_rest: 0,
            bytes_at_rest: 0,
            line: Arc::new(Line::new(channel.clone())),
            alarm: Alarm::default(),
            channel,
            incoming: BytesMut::new(),
            room: None,
            wait: None,
        }
    }

    /// It has become idle.
    pub(crate) fn rest(&mut self) {
        (self.frames_at_rest, self.bytes_at_rest) = (0, 0);
        if let Some(assigned) = &mut self.assigned {
            assigned.idle_since = Instant::now();
        }
    }

    /// When it last became idle.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.assigned.as_ref().map(|assigned| assigned.idle_since)
    }

    /// CPU time it has used since it became idle, as far as it was looked at. What it may use over
    /// its life ([`CpuTime`]) is not to be saved up for one rest.
    pub(crate) fn idle_cpu_ms(&mut self) -> u64 {
        let cpu_ms = self.process.cpu.used_ms();
        let Some(assigned) = &mut self.assigned else { return 0 };
        match assigned.at_rest {
            Some((since, at_first)) if since == assigned.idle_since => {
                cpu_ms.saturating_sub(at_first)
            }
            _ => {
                assigned.at_rest = Some((assigned.idle_since, cpu_ms));
                0
            }
        }
    }

    /// Appends a frame to what [`Worker::poll_flush`] sends.
    pub(crate) fn send(&mut self, frame: &ToWorker) {
        self.line.send(frame);
    }

    /// The next frame of a worker that is in a call.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<FromWorker, ChannelError>> {
        self.poll_frame_within(cx, self.frame_limits.answer_bytes).map_ok(|(frame, _)| frame)
    }

    /// The next frame of one that is in no call, and how long it is. An answer is none of what it may send,
    /// and none takes room, or waits for some.
    pub(crate) fn poll_frame_aside(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(FromWorker, usize), ChannelError>> {
        self.poll_frame_within(cx, self.frame_limits.text_bytes.min(COUNTED_BYTES))
    }

    /// The next frame, and how long it is. It may have so many bytes, if it holds an answer.
    fn poll_frame_within(
        &mut self,
        cx: &mut Context<'_>,
        answer_bytes: usize,
    ) -> Poll<Result<(FromWorker, usize), ChannelError>> {
        loop {
            if let Some(announced) = FromWorker::announced(&self.incoming) {
                let length = announced.length;
                let text_bytes = self.frame_limits.text_bytes;
                let limit_bytes = match announced.holds {
                    Some(Holds::Other) => text_bytes,
                    Some(Holds::Answer | Holds::CodeCache) => answer_bytes,
                    None => answer_bytes.max(text_bytes),
                };
                if length > limit_bytes && !self.may_be_code_cache(announced) {
                    return Poll::Ready(Err(ChannelError::FrameTooLarge(length)));
                }
                if length > COUNTED_BYTES && announced.holds == Some(Holds::Answer) {
                    ready!(self.poll_room(cx, length));
                }
                if let Some(frame) = FromWorker::decode(&mut self.incoming)? {
                    return Poll::Ready(Ok((frame, length)));
                }
            }
            self.make_room();
            if ready!(self.channel.poll_read(cx, &mut self.incoming))? == 0 {
                return Poll::Ready(Err(ChannelError::Closed));
            }
        }
    }

    /// Ready when there is room for the answer that comes, or nothing comes any more: the little that is
    /// under way is read then, and the end behind it. The rest of an answer is not read before.
    fn poll_room(&mut self, cx: &Context<'_>, bytes: usize) -> Poll<()> {
        if self.room.is_some() || self.process.has_exited() {
            return Poll::Ready(());
        }
        let Some(Assigned { rooms, target, .. }) = &self.assigned else { return Poll::Ready(()) };
        if let Poll::Ready(room) = rooms.poll_take(target.owner_id, self.process.id, bytes, cx) {
            self.room = Some(room);
            return Poll::Ready(());
        }
        if self.process.has_exited() {
            // Too soon to be told of it.
            rooms.gone(self.process.id);
            return Poll::Ready(());
        }
        if self.wait.is_none() {
            self.wait = Some(Wait { since: Instant::now(), cpu_ms: self.process.look_at_cpu_ms() });
        }
        Poll::Pending
    }

    /// When the answer that is still to come had to wait for room, if it had to, and the CPU time that its
    /// process has used since.
    pub(crate) fn waits_since(&self) -> Option<(Instant, Duration)> {
        let Wait { since, cpu_ms } = self.wait?;
        let used_ms = self.process.look_at_cpu_ms().saturating_sub(cpu_ms);
        Some((since, Duration::from_millis(used_ms)))
    }

    /// What has come of an answer, with the room that was taken for it.
    pub(crate) fn house(&mut self, answer: Bytes) -> Bytes {
        match self.room.take() {
            Some(room) => {
                self.wait = None;
                room.hold(answer)
            }
            None => answer,
        }
    }

    /// Whether the frame is a code cache that the worker may send, or may turn out to be one.
    fn may_be_code_cache(&self, Announced { length, holds }: Announced) -> bool {
        let left = self.assigned.as_ref().map_or(0, |assigned| assigned.code_caches.1);
        left > 0 && length <= MAX_CODE_CACHE_BYTES && matches!(holds, None | Some(Holds::CodeCache))
    }

    /// Takes in what there is, past tokio, which sees it only when the event loop has looked: and
    /// that may be in the hands of another thread, which sleeps. Whether there was something.
    pub(crate) fn look(&mut self) -> bool {
        self.make_room();
        // An end or an error is found by `poll_frame`.
        self.channel.read(&mut self.incoming).is_ok_and(|n| n > 0)
    }

    fn make_room(&mut self) {
        if self.incoming.capacity() - self.incoming.len() < MIN_READ_BYTES {
            self.incoming.reserve(READ_BYTES);
        }
    }

    /// Sends what was appended, as far as the socket takes it.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.poll_flush(cx)
    }

    /// Leaves the socket to the keeper: when it becomes readable, the keeper is woken. Returns the
    /// next frame if there is one already.
    pub(crate) fn poll_while_waiting(&mut self) -> Poll<Result<FromWorker, ChannelError>> {
        let waker = self.waiting.clone();
        let polled = self.poll_frame_aside(&mut Context::from_waker(&waker));
        if let Poll::Ready(Ok((frame, length))) = &polled
            && !matches!(frame, FromWorker::CodeCache(_))
        {
            self.bytes_at_rest += length;
        }
        if polled.is_pending() {
            if self.incoming.is_empty() && self.incoming.capacity() > KEPT_BUFFER_BYTES {
                self.incoming = BytesMut::new();
            }
            self.line.shrink();
        }
        polled.map_ok(|(frame, _)| frame)
    }

    /// Keeps V8's code cache for later workers of the version, or gives it back when the worker
    /// may not send one.
    pub(crate) fn take_code_cache(&mut self, bytes: Bytes) -> Result<(), Bytes> {
        let Some(assigned) = &mut self.assigned else { return Err(bytes) };
        let (caches, left) = &mut assigned.code_caches;
        if *left == 0 {
            return Err(bytes);
        }
        *left -= 1;
        self.process.cpu.made_code_cache();
        let tag = &self.code_cache_tag;
        let tag = if assigned.calls == 0 { tag.clone() } else { called(tag) };
        caches.store(&assigned.target, tag, bytes);
        Ok(())
    }

    /// Ends the worker. Dropping it instead lets a worker that said it would end do so.
    pub(crate) fn end(self, cause: DeathCause) {
        self.process.kill(cause);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(Assigned { rooms, .. }) = &self.assigned
            && self.wait.is_some()
        {
            // Others wait behind it, and its process may take its time to end.
            rooms.gone(self.process.id);
        }
        // The process ends by itself when it sees the socket closed. The keeper sees to it.
        self.process.dismissed.notify_one();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One whose process is this one. Within a tokio runtime.
    pub(crate) fn worker() -> Box<Worker> {
        let pipe = || {
            let (reader, _) = io::pipe().unwrap();
            tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).unwrap()
        };
        let pid = std::process::id();
        let pidfd = pidfd::open(pid).unwrap();
        let process = Process::new(0, pid, pidfd, Pipes::new(pipe(), pipe()), None);
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        Box::new(Worker::new(Arc::new(process), Channel::new(socket).unwrap()))
    }
}
