//! Log of the binary, written to stderr.
//!
//! ```text
//!  tracing ──▶ format ──▶ line::clean ──▶ Queue (1 MiB) ──▶ thread "log" ──▶ stderr
//! ```
//!
//! Only this thread waits for the reader of stderr. All output of the process to stderr takes this
//! way once the log is started, panics included.

mod line;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use self::queue::Queue;

/// Maximum size of the queued lines. Further lines are dropped and counted.
const QUEUE_BYTES: usize = 1024 * 1024;
/// Maximum time to write the queued lines when the process ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Format of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per line, with the same fields.
    Json,
}

/// Guard of the log. Dropping it waits until the queued lines are written, for a bounded time.
#[derive(Debug)]
pub(crate) struct Log(Sink);

/// Writer that formats lines and adds them to the queue.
#[derive(Clone, Debug)]
struct Sink {
    queue: Arc<Queue>,
    format: Format,
    ansi: bool,
}

/// Starts the log of the process.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn start(format: Format, filter: EnvFilter) -> io::Result<Log> {
    let queue = Arc::new(Queue::new(QUEUE_BYTES));
    let sink = Sink { queue: queue.clone(), format, ansi: format == Format::Text && io::stderr().is_terminal() };
    let notice = move |dropped| line::own(format, "WARN", &format!("{dropped} log lines were dropped"));
    thread::Builder::new().name("log".into()).spawn(move || queue.write_to(io::stderr(), notice))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(sink.ansi)
        // tracing would write its internal errors directly to stderr.
        .log_internal_errors(false)
        .with_writer(sink.clone());
    match format {
        Format::Text => subscriber.init(),
        Format::Json => subscriber.json().flatten_event(true).init(),
    }
    let panics = sink.clone();
    panic::set_hook(Box::new(move |panic| panics.panicked(panic)));
    Ok(Log(sink))
}

impl Log {
    /// Writes the error that ends the process, regardless of the filter.
    pub(crate) fn fail(&self, error: impl Display) {
        let text = format!("tower-eureka: {error}\n");
        match self.0.format {
            Format::Text => self.0.push(&text),
            Format::Json => self.0.queue.push(line::own(Format::Json, "ERROR", text.trim_end())),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.queue.flush(FLUSH_LIMIT);
    }
}

impl Sink {
    fn push(&self, text: &str) {
        self.queue.push(line::clean(text, self.format, self.ansi));
    }

    fn panicked(&self, panic: &PanicHookInfo<'_>) {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let write = |text: &str| self.queue.push(line::own(self.format, "ERROR", text));
        write(&format!("thread '{name}' {panic}"));
        // Captured only if the environment enables it.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            backtrace.to_string().lines().for_each(write);
        }
    }
}

/// tracing writes each formatted event with one call.
impl Write for &Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}
