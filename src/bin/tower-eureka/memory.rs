//! Settings of the allocator, so that it returns freed memory to the system.

use std::fmt;

/// Variable with the user's own settings of the allocator, which take precedence.
const SETTINGS: &str = "_RJEM_MALLOC_CONF";

/// Reason why freed memory is returned late.
#[derive(Debug)]
pub(crate) enum Kept {
    /// The user's own settings apply.
    Settings,
    /// The allocator refused a setting, usually because threads cannot be spawned.
    #[cfg(not(target_env = "msvc"))]
    Refused(tikv_jemalloc_ctl::Error),
}

impl Kept {
    pub(crate) fn log(&self) {
        match self {
            Self::Settings => tracing::info!("allocator settings are those of {SETTINGS}"),
            #[cfg(not(target_env = "msvc"))]
            Self::Refused(_) => tracing::warn!("{self}"),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => write!(f, "{SETTINGS} is set"),
            #[cfg(not(target_env = "msvc"))]
            Self::Refused(error) => {
                write!(f, "freed memory is returned late: the allocator has no background thread: {error}")
            }
        }
    }
}

/// Configures the allocator to return freed memory after about a second, also while the process is
/// idle.
///
/// Without its background thread, jemalloc returns memory only when the arena that freed it is used
/// again. This must run before other threads allocate, since later arenas inherit the defaults that
/// it sets.
#[cfg(not(target_env = "msvc"))]
pub(crate) fn return_freed() -> Result<(), Kept> {
    use tikv_jemalloc_ctl::{Access, AsName};

    if std::env::var_os(SETTINGS).is_some() {
        return Err(Kept::Settings);
    }
    for key in ["arenas.dirty_decay_ms\0", "arena.0.dirty_decay_ms\0"] {
        key.name().write(DECAY_MS).map_err(Kept::Refused)?;
    }
    for key in ["arenas.muzzy_decay_ms\0", "arena.0.muzzy_decay_ms\0"] {
        key.name().write(0_isize).map_err(Kept::Refused)?;
    }
    "max_background_threads\0".name().write(1_usize).map_err(Kept::Refused)?;
    let thread = "background_thread\0".name();
    thread.write(true).map_err(|error| {
        // jemalloc returns memory without the thread only if it knows that there is none.
        let _ = thread.write(false);
        Kept::Refused(error)
    })
}

#[cfg(target_env = "msvc")]
pub(crate) fn return_freed() -> Result<(), Kept> {
    Ok(())
}

/// Time after which freed memory is returned.
#[cfg(not(target_env = "msvc"))]
const DECAY_MS: isize = 1000;
