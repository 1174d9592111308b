//! Limit of open files, which bounds the number of connections.

/// Raises the soft limit to the hard limit and logs both. Returns the soft limit, or `None` if it
/// is unknown.
#[cfg(unix)]
pub(crate) fn raise() -> Option<u64> {
    use rlimit::{Resource, increase_nofile_limit};

    let before = Resource::NOFILE.get();
    let raised = increase_nofile_limit(u64::MAX);
    let (before, (soft, hard)) = match before.and_then(|(before, _)| Ok((before, Resource::NOFILE.get()?))) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "limit of open files is unknown");
            return None;
        }
    };
    let [shown, before, hard] = [soft, before, hard].map(shown);
    match raised {
        Ok(_) => tracing::info!(soft = shown, hard, before, "limit of open files"),
        Err(error) => tracing::warn!(soft = shown, hard, %error, "cannot raise the limit of open files"),
    }
    Some(soft)
}

#[cfg(not(unix))]
pub(crate) fn raise() -> Option<u64> {
    None
}

#[cfg(unix)]
fn shown(limit: u64) -> String {
    if limit == rlimit::INFINITY { "unlimited".to_owned() } else { limit.to_string() }
}
