use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::model::{addresses_of, name_of};

type LookUp<Q, A> = Arc<dyn Fn(Q) -> Pin<Box<dyn Future<Output = Option<A>> + Send>> + Send + Sync>;

/// Look-ups of host names by the operating system.
#[derive(Clone)]
pub(super) struct HostNames {
    name_of: LookUp<IpAddr, String>,
    addresses_of: LookUp<String, Vec<IpAddr>>,
}

impl Default for HostNames {
    fn default() -> Self {
        Self {
            name_of: Arc::new(|ip| Box::pin(async move { off_runtime(move || name_of(ip)).await.flatten() })),
            addresses_of: Arc::new(|name| Box::pin(off_runtime(move || addresses_of(&name)))),
        }
    }
}

impl HostNames {
    /// Returns the host name of an address; `None` if it has none or the limit was reached.
    pub(super) async fn of(&self, ip: IpAddr, limit: Duration) -> Option<String> {
        timeout(limit, (self.name_of)(ip)).await.ok().flatten()
    }

    /// Returns the addresses of a host name; `None` if the limit was reached.
    pub(super) async fn addresses(&self, name: &str, limit: Duration) -> Option<Vec<IpAddr>> {
        timeout(limit, (self.addresses_of)(name.to_owned())).await.ok().flatten()
    }

    /// Replaces the look-ups. One that returns `None` hangs.
    #[cfg(test)]
    pub(super) fn replaced(
        name_of: impl Fn(IpAddr) -> Option<Option<String>> + Send + Sync + 'static,
        addresses_of: impl Fn(String) -> Option<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name_of: Arc::new(move |ip| match name_of(ip) {
                Some(name) => Box::pin(async { name }),
                None => Box::pin(std::future::pending()),
            }),
            addresses_of: Arc::new(move |name| match addresses_of(name) {
                Some(addresses) => Box::pin(async { Some(addresses) }),
                None => Box::pin(std::future::pending()),
            }),
        }
    }
}

/// Runs a function that blocks on a thread of its own, so that a resolver that hangs delays neither
/// the runtime nor its end. Returns `None` if there is no thread, or if the function panics.
///
/// The thread ends when the function does, even if the future is dropped.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("eureka-names".into());
    let spawned = thread.spawn(move || {
        // The caller may have stopped waiting.
        let _ = done.send(work());
    });
    spawned.ok()?;
    result.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn look_up_that_hangs_ends_at_its_limit() {
        let names = HostNames::replaced(|_| None, |_| None);
        let started = tokio::time::Instant::now();
        assert_eq!(names.of([10, 0, 0, 1].into(), Duration::from_secs(1)).await, None);
        assert_eq!(names.addresses("h", Duration::from_secs(5)).await, None);
        assert_eq!(started.elapsed(), Duration::from_secs(6));
    }

    #[tokio::test]
    async fn function_off_the_runtime_returns_its_result_or_none_after_a_panic() {
        assert_eq!(off_runtime(|| 7).await, Some(7));
        let panicking = off_runtime(|| -> i32 { panic!("resolver") });
        assert_eq!(panicking.await, None);
    }

    #[tokio::test]
    async fn loopback_address_has_no_host_name_for_other_machines() {
        let names = HostNames::default();
        assert_eq!(names.of([127, 0, 0, 1].into(), Duration::from_secs(60)).await, None);
        let addresses = names.addresses("localhost", Duration::from_secs(60)).await;
        assert!(addresses.is_some_and(|found| found.iter().all(IpAddr::is_loopback)));
    }
}
