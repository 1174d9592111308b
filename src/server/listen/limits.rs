use std::time::Duration;

/// What a [`Listener`](super::Listener) puts up with; its setters document each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) answer_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) head_bytes: usize,
    pub(crate) headers: usize,
    pub(crate) shutdown_timeout: Duration,
}

impl Limits {
    /// hyper reads no heads of more headers than this without an allocation for each.
    pub(super) const DEFAULT_HEADERS: usize = 100;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            head_bytes: 32 * 1024,
            headers: Self::DEFAULT_HEADERS,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}
