//! Java's rate limit on fetches (docs/server.md, "Rate limits").

use http::{HeaderMap, Method};

use super::bucket::Bucket;
use crate::server::settings::RateLimits as Settings;
use crate::sync::Mutex;

/// Header with the name of a client's kind.
const NAME: &str = "discoveryidentity-name";
/// Names of stock clients and servers.
const STANDARD: [&str; 2] = ["DefaultClient", "DefaultServer"];

/// Fetch of a list. All other requests pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    Full,
    Delta,
    Application,
}

impl Fetch {
    /// Recognizes a fetch by the end of the path, as Java does.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        if method != Method::GET {
            return None;
        }
        let (head, last) = path.rsplit_once('/')?;
        match last {
            "apps" => Some(Self::Full),
            _ if !head.ends_with("/apps") => None,
            "" => Some(Self::Full),
            "delta" => Some(Self::Delta),
            _ => Some(Self::Application),
        }
    }
}

/// Buckets of the whole server.
#[derive(Debug)]
pub(super) struct Fetches {
    burst: u32,
    rate: u32,
    full_rate: u32,
    throttles_standard_clients: bool,
    privileged: Vec<String>,
    /// Bucket of all fetches, and the one of full fetches.
    buckets: Mutex<[Bucket; 2]>,
}

impl Fetches {
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        settings.enabled.then(|| Self {
            burst: settings.burst,
            rate: settings.fetch_rate,
            full_rate: settings.full_fetch_rate,
            throttles_standard_clients: settings.throttles_standard_clients,
            privileged: settings.privileged.clone(),
            buckets: Mutex::default(),
        })
    }

    /// Returns true if the sender is exempt by its name. Any sender may use any name.
    pub(super) fn is_privileged(&self, headers: &HeaderMap) -> bool {
        let Some(name) = headers.get(NAME).filter(|_| !self.throttles_standard_clients) else { return false };
        STANDARD.iter().any(|standard| name == standard) || self.privileged.iter().any(|known| name == known)
    }

    /// Takes a token. A full fetch takes one of the bucket of all fetches even if it is refused.
    pub(super) fn admit(&self, fetch: Fetch, now: i64) -> bool {
        let [all, full] = &mut *self.buckets.lock();
        let is_admitted = all.acquire(self.burst, self.rate, now);
        if fetch == Fetch::Full { full.acquire(self.burst, self.full_rate, now) && is_admitted } else { is_admitted }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const START: i64 = 1_700_000_000_000;

    #[test]
    fn fetch_is_recognized_by_the_end_of_the_path() {
        for (path, expected) in [
            ("/eureka/apps", Some(Fetch::Full)),
            ("/eureka/v2/apps/", Some(Fetch::Full)),
            ("/apps/delta", Some(Fetch::Delta)),
            ("/apps/ORDERS", Some(Fetch::Application)),
            ("/apps/ORDERS/i", None),
            ("/apps/ORDERS/", None),
            ("/eureka/vips/x", None),
            ("/apps/apps", Some(Fetch::Full)),
        ] {
            assert_eq!(Fetch::of(&Method::GET, path), expected, "{path}");
            assert_eq!(Fetch::of(&Method::POST, path), None, "{path}");
        }
    }

    #[test]
    fn full_fetch_needs_both_buckets_and_takes_the_first_even_if_refused() {
        let settings = Settings::new().enabled(true).burst(4).fetch_rate(1).full_fetch_rate(1);
        let fetches = Fetches::new(&settings).unwrap();
        {
            let [_, full] = &mut *fetches.buckets.lock();
            while full.acquire(4, 1, START) {}
        }
        assert!((0..3).all(|_| !fetches.admit(Fetch::Full, START)), "the bucket of full fetches is empty");
        assert!(fetches.admit(Fetch::Delta, START), "one token is left");
        assert!(!fetches.admit(Fetch::Application, START));
        assert!(fetches.admit(Fetch::Application, START + 1_000));
    }

    #[test]
    fn privileged_names_are_exempt_unless_standard_clients_are_throttled() {
        let is_privileged = |settings: Settings, name: &'static str| {
            let headers = HeaderMap::from_iter([(NAME.parse().unwrap(), HeaderValue::from_static(name))]);
            Fetches::new(&settings.enabled(true)).unwrap().is_privileged(&headers)
        };
        let settings = || Settings::new().privileged_clients(["dashboard"]);
        for (name, expected) in
            [("DefaultClient", true), ("DefaultServer", true), ("dashboard", true), ("other", false), ("", false)]
        {
            assert_eq!(is_privileged(settings(), name), expected, "{name}");
            assert!(!is_privileged(settings().throttle_standard_clients(true), name), "{name}");
        }
    }
}
