//! Thread that decodes all large lists of the process, one after the other.
//!
//! glibc keeps freed memory for the thread that allocated it. On the threads of a pool, the memory
//! of several lists that were refused would add up.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, SendError, Sender};
use std::thread;
use std::time::Duration;

use crate::sync::{Mutex, offload};

/// Time without a list after which the thread ends.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

type Job = Box<dyn FnOnce() + Send>;

/// Queue of the thread. `None` while there is no thread.
static JOBS: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// Runs a closure on the thread, while a blocking thread of the runtime waits for it. A panic of
/// the closure is resumed here.
pub(super) async fn offload_list<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    offload(move || run(work)).await
}

fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, output) = mpsc::channel();
    add(Box::new(move || drop(done.send(catch_unwind(AssertUnwindSafe(work))))));
    match output.recv().expect("each job runs to its end") {
        Ok(output) => output,
        Err(panic) => resume_unwind(panic),
    }
}

/// Adds a job to the queue, and starts the thread if there is none. Runs the job at once if no
/// thread can be started.
fn add(mut job: Job) {
    let mut jobs = JOBS.lock();
    if let Some(sender) = &*jobs {
        match sender.send(job) {
            Ok(()) => return,
            Err(SendError(unsent)) => job = unsent,
        }
    }
    let (sender, receiver) = mpsc::channel();
    match thread::Builder::new().name("eureka-lists".into()).spawn(move || run_jobs(&receiver)) {
        Ok(_) => {
            sender.send(job).expect("the thread receives until the queue is removed");
            *jobs = Some(sender);
        }
        Err(_) => {
            drop(jobs);
            job();
        }
    }
}

fn run_jobs(receiver: &Receiver<Job>) {
    loop {
        if let Ok(job) = receiver.recv_timeout(KEEP_ALIVE) {
            job();
            continue;
        }
        let mut jobs = JOBS.lock();
        // Added in the meantime.
        let Ok(job) = receiver.try_recv() else {
            *jobs = None;
            return;
        };
        drop(jobs);
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closures_run_on_one_thread_also_after_a_panic() {
        let id = || thread::current().id();
        let first = offload_list(id).await;
        assert_ne!(first, id());
        let panicked = tokio::spawn(offload_list(|| panic!("of the test"))).await;
        assert!(panicked.unwrap_err().is_panic());
        let others: Vec<_> = (0..20).map(|_| tokio::spawn(offload_list(id))).collect();
        for other in others {
            assert_eq!(other.await.unwrap(), first);
        }
    }
}
