//! Standard output and error of a worker: read so that the worker never blocks on them, cut into
//! lines, bounded.
//!
//! Output that was written before an answer belongs to its call. The kernel reports the pipe no
//! later than the answer, so tokio nearly always knows at the end of a call whether there is
//! output, and asking tokio costs no system call. Only when the answer was read along with
//! something the worker said before, or past tokio, does it not know yet; so after such calls, and of
//! workers that are known to write or not known yet, the pipes are read in any case.
//!
//! A call that waits in a worker begins when the one before it has said that it is over, and writes
//! before that is heard here. So none waits in a worker whose calls write to its pipes; what goes
//! through `console` comes over the control socket, in order.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use cloudserve_protocol::call::{LogLevel, epoch_ms};
use parking_lot::Mutex;
use tokio::net::unix::pipe;

use crate::logs::LogBuffer;

/// Log of a worker that has no function yet.
const UNASSIGNED_LOG_BYTES: u32 = 16 * 1024;

/// The end of standard error that is kept to explain a death.
const LAST_WORDS_BYTES: usize = 4 * 1024;

/// Longest line; a longer one is cut into several.
const LINE_BYTES: usize = 16 * 1024;

const READ_BYTES: usize = 16 * 1024;

/// Reads of one pipe in one go. A worker that writes faster than we read does not hold up others.
const READS_AT_ONCE: usize = 16;

/// What a pipe holds, by default.
const PIPE_BYTES: usize = 64 * 1024;

/// Both pipes of one worker.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    state: Mutex<State>,
    /// Something was written after the function's first call, and not long ago.
    are_in_use: AtomicBool,
}

#[derive(Debug)]
struct State {
    out: Splitter,
    err: Splitter,
    log: LogBuffer,
    limit_bytes: u32,
    last_words: Vec<u8>,
    has_written: bool,
    takes: u32,
    /// Takes in a row that had nothing.
    quiet_takes: u32,
}

/// Takes of the log of a worker that is not known yet: after loading and after the first call.
const FIRST_TAKES: u32 = 2;

/// Takes in a row without output after which a worker counts as one that does not write.
const QUIET_TAKES: u32 = 256;

/// The unfinished line of one pipe.
#[derive(Debug)]
struct Splitter {
    level: LogLevel,
    partial: Vec<u8>,
    is_open: bool,
}

impl Pipes {
    pub(crate) fn new(stdout: pipe::Receiver, stderr: pipe::Receiver) -> Self {
        let splitter = |level| Splitter { level, partial: Vec::new(), is_open: true };
        let state = State {
            out: splitter(LogLevel::Info),
            err: splitter(LogLevel::Error),
            log: LogBuffer::new(UNASSIGNED_LOG_BYTES),
            limit_bytes: UNASSIGNED_LOG_BYTES,
            last_words: Vec::new(),
            has_written: false,
            takes: 0,
            quiet_takes: 0,
        };
        Self { stdout, stderr, state: Mutex::new(state), are_in_use: AtomicBool::new(false) }
    }

    /// From now on at most this much is kept between two calls of [`Pipes::take_log`].
    pub(crate) fn set_limit(&self, limit_bytes: u32) {
        let mut state = self.state.lock();
        state.limit_bytes = limit_bytes;
        state.log = LogBuffer::new(limit_bytes);
    }

    /// Resolves when there is something to [`Pipes::drain`]; never when both pipes are closed.
    pub(crate) async fn readable(&self) {
        let (out, err) = {
            let state = self.state.lock();
            (state.out.is_open, state.err.is_open)
        };
        tokio::select! {
            _ = self.stdout.readable(), if out => {}
            _ = self.stderr.readable(), if err => {}
            else => std::future::pending().await,
        }
    }

    /// Takes in what is there, without waiting.
    pub(crate) fn drain(&self) {
        self.drain_locked(&mut self.state.lock(), pipe::Receiver::try_read_buf);
    }

    fn drain_locked(&self, state: &mut State, read: Read) {
        let State { out, err, log, last_words, has_written, takes, quiet_takes, .. } = state;
        let mut has_read = read_lines(|buffer| read(&self.stdout, buffer), out, log, None);
        has_read |= read_lines(|buffer| read(&self.stderr, buffer), err, log, Some(last_words));
        *has_written |= has_read;
        if has_read {
            *quiet_takes = 0;
        }
        // By then what was written while it was loaded has been taken, and warnings that come once.
        if has_read && *takes >= FIRST_TAKES {
            self.are_in_use.store(true, Ordering::Relaxed);
        }
    }

    /// Whether what calls write here could be taken for what the calls before them wrote, if they
    /// followed at once.
    pub(crate) fn are_in_use(&self) -> bool {
        self.are_in_use.load(Ordering::Relaxed)
    }

    /// The lines since the last time, an unfinished one included.
    ///
    /// `has_looked`: the answer was read before the event loop had seen it, and what came before the
    /// answer may not have been seen either.
    pub(crate) fn take_log(&self, has_looked: bool) -> Option<LogBuffer> {
        let mut state = self.state.lock();
        let is_sure = !has_looked && !state.has_written && state.takes >= FIRST_TAKES;
        self.drain_locked(
            &mut state,
            if is_sure { pipe::Receiver::try_read_buf } else { read_in_any_case },
        );
        state.takes = state.takes.saturating_add(1);
        state.quiet_takes = state.quiet_takes.saturating_add(1);
        if state.quiet_takes == QUIET_TAKES {
            self.are_in_use.store(false, Ordering::Relaxed);
        }
        let State { out, err, log, limit_bytes, .. } = &mut *state;
        out.flush(log);
        err.flush(log);
        if log.is_empty() {
            return None;
        }
        Some(std::mem::replace(log, LogBuffer::new(*limit_bytes)))
    }

    /// Adds a line that came over the control socket outside of a call.
    pub(crate) fn push(&self, level: LogLevel, timestamp_ms: u64, message: String) {
        self.state.lock().log.push(level, timestamp_ms, message);
    }

    /// The end of standard error.
    pub(crate) fn last_words(&self) -> String {
        String::from_utf8_lossy(&self.state.lock().last_words).trim().to_owned()
    }
}

/// Reads some of a pipe without waiting.
type Read = fn(&pipe::Receiver, &mut BytesMut) -> io::Result<usize>;

/// Reads even if tokio has not heard yet that there is something to read.
fn read_in_any_case(pipe: &pipe::Receiver, buffer: &mut BytesMut) -> io::Result<usize> {
    let mut piece = [0; PIPE_BYTES / READS_AT_ONCE];
    let n = nix::unistd::read(pipe, &mut piece)?;
    buffer.extend_from_slice(&piece[..n]);
    Ok(n)
}

/// Returns whether there was anything.
fn read_lines(
    read: impl Fn(&mut BytesMut) -> io::Result<usize>,
    splitter: &mut Splitter,
    log: &mut LogBuffer,
    mut last_words: Option<&mut Vec<u8>>,
) -> bool {
    let mut buffer = BytesMut::new();
    let mut has_read = false;
    for _ in 0..READS_AT_ONCE {
        if !splitter.is_open {
            break;
        }
        match read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Ok(0) | Err(_) => splitter.is_open = false,
            Ok(_) => {
                has_read = true;
                splitter.split(&buffer, log);
                if let Some(words) = last_words.as_deref_mut() {
                    words.extend_from_slice(&buffer);
                    words.drain(..words.len().saturating_sub(LAST_WORDS_BYTES));
                }
                buffer.clear();
                buffer.reserve(READ_BYTES);
            }
        }
    }
    has_read
}

impl Splitter {
    fn split(&mut self, mut bytes: &[u8], log: &mut LogBuffer) {
        if log.is_cut() {
            self.partial.clear();
            return;
        }
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.append(&bytes[..end], log);
            self.emit(log);
            bytes = &bytes[end + 1..];
        }
        self.append(bytes, log);
    }

    fn append(&mut self, mut bytes: &[u8], log: &mut LogBuffer) {
        while self.partial.len() + bytes.len() > LINE_BYTES {
            let (head, tail) = bytes.split_at(LINE_BYTES - self.partial.len());
            self.partial.extend_from_slice(head);
            self.emit(log);
            bytes = tail;
        }
        self.partial.extend_from_slice(bytes);
    }

    fn emit(&mut self, log: &mut LogBuffer) {
        let line = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        log.push(self.level, epoch_ms(), line);
    }

    fn flush(&mut self, log: &mut LogBuffer) {
        if !self.partial.is_empty() {
            self.emit(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipes() -> (Pipes, std::io::PipeWriter, std::io::PipeWriter) {
        let open = || {
            let (reader, writer) = std::io::pipe().unwrap();
            (pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).unwrap(), writer)
        };
        let (stdout, out) = open();
        let (stderr, err) = open();
        (Pipes::new(stdout, stderr), out, err)
    }

    fn messages(log: LogBuffer) -> Vec<(LogLevel, String)> {
        log.finish().0.into_iter().map(|line| (line.level, line.message)).collect()
    }

    #[tokio::test]
    async fn output_becomes_lines_and_the_unfinished_one_is_not_lost() {
        use std::io::Write;
        let (pipes, mut out, mut err) = pipes();
        out.write_all(b"one\ntwo").unwrap();
        err.write_all(b"bad\n").unwrap();
        pipes.readable().await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let log = messages(pipes.take_log(false).unwrap());
        assert_eq!(
            log,
            [
                (LogLevel::Info, "one".to_owned()),
                (LogLevel::Error, "bad".to_owned()),
                (LogLevel::Info, "two".to_owned())
            ]
        );
        assert_eq!(pipes.last_words(), "bad");
        assert!(pipes.take_log(false).is_none());
    }

    #[tokio::test]
    async fn output_of_calls_is_told_from_that_of_the_beginning() {
        use std::io::Write;
        let (pipes, mut out, mut err) = pipes();
        for words in ["loading", "this is deprecated"] {
            out.write_all(words.as_bytes()).unwrap();
            assert!(pipes.take_log(false).is_some() && !pipes.are_in_use(), "{words}");
        }
        err.write_all(b"called").unwrap();
        assert!(pipes.take_log(false).is_some() && pipes.are_in_use());
        assert!(pipes.take_log(false).is_none() && pipes.are_in_use(), "it may write again");
    }

    #[tokio::test]
    async fn a_flood_is_cut_and_never_blocks_the_writer() {
        use std::io::Write;
        let (pipes, mut out, err) = pipes();
        drop(err);
        let writer = std::thread::spawn(move || {
            let block = vec![b'x'; 64 * 1024];
            (0..160).for_each(|_| out.write_all(&block).unwrap());
        });
        while pipes.state.lock().out.is_open {
            pipes.readable().await;
            pipes.drain();
        }
        writer.join().unwrap();
        let (lines, is_cut) = pipes.take_log(false).unwrap().finish();
        assert!(is_cut);
        assert!(lines.iter().map(|l| l.message.len()).sum::<usize>() < 17 * 1024);
    }
}
