use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{self, timeout};

use super::mirror::is_among;
use super::saved::{SavedList, SavedRegistry, temporary};
use super::snapshot::Snapshot;
use crate::config::{ClientConfig, Interest, RegistryIdentity};
use crate::model::{Application, Applications, Digest, Instance};
use crate::panics::catch_panic;
use crate::sync::{Mutex, offload};
use crate::time::{jittered, wall_clock_ms};

/// Time between two saves of a registry that changes. The close of the client saves as well.
const SAVE_INTERVAL: Duration = Duration::from_secs(300);
/// A file that is older than this part of the maximum age is saved again although nothing changed.
const UNCHANGED_PART: i64 = 8;
/// Maximum time to read the file at the start. A network file system may hang.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum time of the save at the close of the client.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Number of times by which a file may be larger than a response, since it has held instances too.
const SIZE_FACTOR: u64 = 2;

/// Registry file of a client: read once at the start, then saved seldom. No method blocks, and no
/// fault of the file is more than a warning.
#[derive(Debug)]
pub(super) struct RegistryFile {
    saved: SavedRegistry,
    /// Static instances, which are not saved.
    fixed: Vec<Arc<Application>>,
    /// True if only the names in use are fetched. What the file has of other names is kept in it.
    is_partial: bool,
    latest: Mutex<Latest>,
    /// State of the file. Locked on blocking threads only, while the file is written.
    written: Mutex<Written>,
    /// True since a save failed.
    is_failing: AtomicBool,
}

/// Last fetched state, and the time of the next save.
#[derive(Debug, Default)]
struct Latest {
    fetched: Option<Fetched>,
    next_save: Option<time::Instant>,
    /// Alive while a save runs.
    running: Weak<()>,
}

#[derive(Clone, Debug)]
struct Fetched {
    snapshot: Arc<Snapshot>,
    /// Milliseconds since the epoch.
    at_ms: i64,
    /// Number of the fetch. An earlier state never replaces a later one.
    number: u64,
}

/// Content of the file as far as it is known.
#[derive(Debug, Default)]
struct Written {
    digest: Option<Digest>,
    fetched_ms: i64,
    number: u64,
    /// Content of the file at the start, for the names that are not in use yet.
    restored: Option<SavedList>,
}

impl RegistryFile {
    /// Returns the file of a client; `None` if it has none.
    pub(super) fn of(config: &ClientConfig) -> Option<Arc<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let offline = &config.offline;
        let path = offline.file.clone()?;
        let saved = SavedRegistry {
            temporary: temporary(&path, NUMBER.fetch_add(1, Ordering::Relaxed)),
            path,
            identity: RegistryIdentity::of(config),
            max_age: offline.file_max_age,
            max_size: (config.body_limit as u64).saturating_mul(SIZE_FACTOR),
        };
        Some(Arc::new(Self {
            saved,
            fixed: offline.instances.clone(),
            is_partial: config.interest == Interest::Used,
            latest: Mutex::default(),
            written: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }))
    }

    /// Reads the file. Returns `None` if there is none, or none that can be used.
    pub(super) async fn restore(self: &Arc<Self>) -> Option<SavedList> {
        let (this, now_ms) = (self.clone(), wall_clock_ms());
        let load = offload(move || {
            let restored = this.saved.load(now_ms);
            if let Ok(Some(restored)) = &restored {
                let (digest, fetched_ms) = (Some(digest(&restored.list)), restored.fetched_ms);
                let restored = Some(restored).filter(|_| this.is_partial).cloned();
                *this.written.lock() = Written { digest, fetched_ms, number: 0, restored };
            }
            restored
        });
        let file = self.saved.path.display();
        let cause = match timeout(READ_TIMEOUT, catch_panic(load)).await {
            Ok(Ok(Ok(None))) => {
                tracing::debug!(%file, "there is no registry file yet");
                return None;
            }
            Ok(Ok(Ok(Some(restored)))) => {
                let age = Duration::from_secs(now_ms.saturating_sub(restored.fetched_ms).max(0).unsigned_abs() / 1000);
                let instances = restored.list.len();
                tracing::info!(%file, instances, ?age, "registry file read, using it until the registry is fetched");
                return Some(restored);
            }
            Ok(Ok(Err(unusable))) => unusable.to_string(),
            Ok(Err(panicked)) => format!("reading it {panicked}"),
            Err(_) => format!("reading it took more than {READ_TIMEOUT:?}"),
        };
        tracing::warn!(%file, "cannot use the registry file: {cause}; it is replaced after the next fetch");
        None
    }

    /// Records a fetched state, and saves it in the background if a save is due. Must be called on
    /// a tokio runtime.
    pub(super) fn fetched(self: &Arc<Self>, snapshot: Arc<Snapshot>) {
        let now = time::Instant::now();
        let mut latest = self.latest.lock();
        let number = latest.fetched.as_ref().map_or(0, |fetched| fetched.number) + 1;
        let fetched = Fetched { snapshot, at_ms: wall_clock_ms(), number };
        latest.fetched = Some(fetched.clone());
        // One save at a time, since a hanging file system may never end it.
        if latest.next_save.is_none_or(|next| now >= next) && latest.running.strong_count() == 0 {
            latest.next_save = Some(now + jittered(SAVE_INTERVAL));
            let (this, running) = (self.clone(), Arc::new(()));
            latest.running = Arc::downgrade(&running);
            // Not awaited: a slow disk delays no refresh.
            tokio::spawn(async move {
                this.save(fetched).await;
                drop(running);
            });
        }
    }

    /// Saves the last fetched state if it changed, within a time limit.
    pub(super) async fn close(self: &Arc<Self>) {
        let Some(fetched) = self.latest.lock().fetched.clone() else { return };
        if timeout(CLOSE_TIMEOUT, self.save(fetched)).await.is_err() {
            tracing::warn!(file = %self.saved.path.display(), "cannot save the registry file within {CLOSE_TIMEOUT:?}");
        }
    }

    /// Saves this state unless the file has it already, and logs the first of several faults.
    async fn save(self: &Arc<Self>, fetched: Fetched) {
        let this = self.clone();
        let saved = offload(move || this.write(&fetched)).await;
        let (file, was_failing) = (self.saved.path.display(), self.is_failing.load(Ordering::Relaxed));
        self.is_failing.store(saved.is_err(), Ordering::Relaxed);
        match saved {
            Ok(()) if was_failing => tracing::info!(%file, "registry file saved again"),
            Ok(()) => {}
            Err(error) if was_failing => tracing::debug!(%file, %error, "cannot save the registry file"),
            Err(error) => tracing::warn!(
                %file,
                "cannot save the registry file: {error}; check that its folder exists and is writable, or remove registry_file()"
            ),
        }
    }

    /// Writes this state unless the file has it already. Blocks.
    fn write(&self, fetched: &Fetched) -> io::Result<()> {
        let is_own = |application: &&Arc<Application>| !is_among(&self.fixed, application);
        let applications = fetched.snapshot.applications().filter(is_own).cloned().collect();
        let mut list = Applications { version: Some(1), hash: None, applications };
        let mut written = self.written.lock();
        let max_age_ms = i64::try_from(self.saved.max_age.as_millis()).unwrap_or(i64::MAX);
        // Renewed with every save, it would never be too old.
        let is_usable = |restored: &SavedList| fetched.at_ms.saturating_sub(restored.oldest_ms) <= max_age_ms;
        written.restored = written.restored.take().filter(is_usable);
        let mut oldest_ms = fetched.at_ms;
        if let Some(restored) = &written.restored
            && add_unused(&mut list, &restored.list, &fetched.snapshot)
        {
            oldest_ms = restored.oldest_ms.min(oldest_ms);
        }
        let digest = digest(&list);
        let is_fresh = fetched.at_ms.saturating_sub(written.fetched_ms) < max_age_ms / UNCHANGED_PART;
        let is_saved = written.digest == Some(digest) && is_fresh && self.saved.path.exists();
        if is_saved || fetched.number < written.number {
            return Ok(());
        }
        self.saved.save(&SavedList { list, fetched_ms: fetched.at_ms, oldest_ms })?;
        (written.digest, written.fetched_ms, written.number) = (Some(digest), fetched.at_ms, fetched.number);
        Ok(())
    }
}

/// Adds the instances of names that a snapshot does not cover. Returns `true` if there are any.
fn add_unused(list: &mut Applications, restored: &Applications, snapshot: &Snapshot) -> bool {
    let mut is_any = false;
    for application in &restored.applications {
        let present = snapshot.application(&application.name);
        let is_unused = |instance: &&Arc<Instance>| {
            !snapshot.covers(instance) && present.is_none_or(|present| present.instance(instance.id()).is_none())
        };
        let instances: Vec<_> = application.instances.iter().filter(is_unused).cloned().collect();
        if instances.is_empty() {
            continue;
        }
        is_any = true;
        match list.applications.iter_mut().find(|known| known.name == application.name) {
            Some(known) => Arc::make_mut(known).instances.extend(instances),
            None => list.applications.push(Arc::new(Application { name: application.name.clone(), instances })),
        }
    }
    is_any
}

/// Returns the digest of a list, which does not depend on the times of heartbeats.
fn digest(list: &Applications) -> Digest {
    list.applications.iter().map(|application| Digest::of_application(application)).collect()
}

#[cfg(test)]
mod tests;
