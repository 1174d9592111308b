//! Bounded queue of log lines, and the loop that writes them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Memory of a line in addition to its text.
const LINE_OVERHEAD: usize = 64;
/// Pause before another write to a descriptor that would block.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Queue of lines to write. Adding a line never blocks: without room the line is dropped and
/// counted.
///
/// A full queue accepts lines again once it is half empty. So a slow reader gets long contiguous
/// parts of the log with one count of dropped lines between them.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    state: Mutex<State>,
    added: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// Size of the queued lines and of the one that is being written.
    bytes: usize,
    is_full: bool,
    /// Number of lines dropped since the last one that was added.
    dropped: u64,
    is_writing: bool,
}

#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    /// Number of lines that were dropped directly before this one.
    dropped: u64,
}

impl Line {
    fn size(&self) -> usize {
        self.text.len() + LINE_OVERHEAD
    }
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default(), added: Condvar::new(), written: Condvar::new() }
    }

    pub(super) fn push(&self, text: Vec<u8>) {
        let mut line = Line { text, dropped: 0 };
        let mut state = self.state();
        let room = if state.is_full { self.capacity / 2 } else { self.capacity };
        state.is_full = state.bytes + line.size() > room;
        if state.is_full {
            state.dropped += 1;
            return;
        }
        line.dropped = mem::take(&mut state.dropped);
        state.bytes += line.size();
        state.lines.push_back(line);
        drop(state);
        self.added.notify_one();
    }

    /// Waits until all lines are written, for at most this time. Returns false if some are not.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty() || state.dropped > 0;
        let waited = self.written.wait_timeout_while(self.state(), limit, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Writes lines as they are added, and `notice` in place of dropped lines. Never returns.
    ///
    /// A line that cannot be written counts as dropped.
    pub(super) fn write_to(&self, out: impl Write, notice: impl Fn(u64) -> Vec<u8>) {
        let mut out = Output { out, is_torn: false };
        let mut dropped = 0;
        loop {
            let line = self.next();
            dropped += line.dropped;
            let mut is_writable = true;
            if dropped > 0 {
                is_writable = out.write(&notice(dropped)).is_ok();
                if is_writable {
                    dropped = 0;
                }
            }
            let is_done = line.text.is_empty() || is_writable && out.write(&line.text).is_ok();
            dropped += u64::from(!is_done);
            let mut state = self.state();
            state.is_writing = false;
            state.bytes = state.bytes.saturating_sub(line.size());
            drop(state);
            self.written.notify_all();
        }
    }

    /// Waits for the next line. Its text is empty if lines were dropped and none followed.
    fn next(&self) -> Line {
        let is_idle = |state: &mut State| state.lines.is_empty() && state.dropped == 0;
        let mut state = self.added.wait_while(self.state(), is_idle).unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        match state.lines.pop_front() {
            Some(line) => line,
            None => {
                let line = Line { text: Vec::new(), dropped: mem::take(&mut state.dropped) };
                state.bytes += line.size();
                line
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Output<W> {
    out: W,
    /// True if only a part of the last line was written.
    is_torn: bool,
}

impl<W: Write> Output<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_all(b"\n")?;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.is_torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process that shares the descriptor may have made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(RETRY_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const FOREVER: Duration = Duration::from_secs(3600);

    /// Output that accepts one write per `Ok` and fails once per `Err`.
    struct Gate {
        permits: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(|_| io::Error::other("the test is over"))??;
            self.written.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns a queue with room for this number of one-character lines, the permits of its output,
    /// and the written lines.
    fn queue(lines: usize) -> (Arc<Queue>, Sender<io::Result<()>>, Receiver<String>) {
        let queue = Arc::new(Queue::new(lines * (1 + LINE_OVERHEAD)));
        let ((permit, permits), (written, lines)) = (channel(), channel());
        let served = queue.clone();
        thread::spawn(move || {
            served.write_to(Gate { permits, written }, |dropped| format!("{dropped} dropped").into_bytes());
        });
        (queue, permit, lines)
    }

    fn push(queue: &Queue, lines: &str) {
        lines.chars().for_each(|line| queue.push(line.to_string().into_bytes()));
    }

    fn permit(permits: &Sender<io::Result<()>>, count: usize) {
        (0..count).for_each(|_| permits.send(Ok(())).unwrap());
    }

    fn take(lines: &Receiver<String>, count: usize) -> Vec<String> {
        (0..count).map(|_| lines.recv().unwrap()).collect()
    }

    #[test]
    fn lines_without_room_are_dropped_and_counted_in_their_place() {
        let (queue, permits, lines) = queue(4);
        push(&queue, "abcdefg");
        assert!(!queue.flush(Duration::ZERO));
        // The queue accepts lines again once it is half empty, which it is not after one line.
        permit(&permits, 1);
        assert_eq!(take(&lines, 1), ["a"]);
        while queue.state().bytes > 3 * (1 + LINE_OVERHEAD) {
            thread::yield_now();
        }
        push(&queue, "h");
        permit(&permits, 2);
        assert_eq!(take(&lines, 2), ["b", "c"]);
        while queue.state().bytes > 1 + LINE_OVERHEAD {
            thread::yield_now();
        }
        push(&queue, "i");
        permit(&permits, 3);
        assert_eq!(take(&lines, 3), ["d", "4 dropped", "i"]);
        assert!(queue.flush(FOREVER));
        assert_eq!(queue.state().bytes, 0);
    }

    #[test]
    fn dropped_lines_are_reported_if_no_line_follows() {
        let (queue, permits, lines) = queue(2);
        push(&queue, "abcd");
        permit(&permits, 3);
        assert_eq!(take(&lines, 3), ["a", "b", "2 dropped"]);
        assert!(queue.flush(FOREVER));
    }

    #[test]
    fn lines_that_cannot_be_written_count_as_dropped() {
        let (queue, permits, lines) = queue(9);
        push(&queue, "abc");
        // A full device fails the first line, and then the notice before each further line.
        (0..3).for_each(|_| permits.send(Err(ErrorKind::StorageFull.into())).unwrap());
        assert!(queue.flush(FOREVER));
        push(&queue, "d");
        permit(&permits, 2);
        assert_eq!(take(&lines, 2), ["3 dropped", "d"]);
    }

    #[test]
    fn write_that_would_block_is_retried() {
        let (queue, permits, lines) = queue(9);
        push(&queue, "a");
        permits.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        permits.send(Err(ErrorKind::Interrupted.into())).unwrap();
        permit(&permits, 1);
        assert_eq!(take(&lines, 1), ["a"]);
    }

    #[test]
    fn line_after_a_torn_line_begins_on_a_new_line() {
        struct Tearing(Vec<u8>, usize);
        impl Write for Tearing {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 {
                    1 => self.0.extend_from_slice(&bytes[..2]),
                    2 => return Err(ErrorKind::StorageFull.into()),
                    _ => self.0.extend_from_slice(bytes),
                }
                Ok(if self.1 == 1 { 2 } else { bytes.len() })
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Output { out: Tearing(Vec::new(), 0), is_torn: false };
        assert!(out.write(b"first\n").is_err());
        out.write(b"second\n").unwrap();
        out.write(b"third\n").unwrap();
        assert_eq!(out.out.0, b"fi\nsecond\nthird\n");
    }
}
