//! Rows of the list: one instance each, in groups by application.

use askama::Template;

use super::query::searched;
use super::text::{self, Span};
use crate::model::{InstanceStatus, StatusCounts, shown_address};
use crate::server::registry::{LeaseState, Registry};
use crate::server::view::{AppView, Record};

/// Instance as the list shows it.
#[derive(Debug, Template)]
#[template(path = "row.html")]
pub(super) struct Row {
    /// Query that leads to the details. The script uses it as the key of the row.
    pub(super) query: String,
    /// Text that the search in the browser looks at.
    pub(super) searched: String,
    pub(super) id: String,
    pub(super) status: InstanceStatus,
    pub(super) is_overridden: bool,
    pub(super) zone: String,
    pub(super) version: String,
    pub(super) address: String,
    pub(super) link: Option<String>,
    /// Milliseconds since the last heartbeat. `None` if there was none since the registration.
    pub(super) renewed_ms: Option<i64>,
    /// Milliseconds until the lease expires.
    pub(super) left_ms: i64,
    pub(super) is_preserved: bool,
    pub(super) sender: String,
}

/// Application as the list shows it.
#[derive(Debug, Template)]
#[template(path = "application.html")]
pub(super) struct Group {
    /// Encoded name, the key of the group.
    pub(super) key: String,
    pub(super) name: String,
    pub(super) counts: String,
    pub(super) is_preserved: bool,
    /// The heading says so. If all applications are preserved, the status does.
    pub(super) is_marked: bool,
    pub(super) rows: Vec<Row>,
}

/// Heading of an application.
#[derive(Debug, Template)]
#[template(path = "heading.html")]
pub(super) struct Heading<'a> {
    pub(super) name: &'a str,
    pub(super) counts: &'a str,
    pub(super) is_marked: bool,
}

impl Row {
    pub(super) fn of(lease: &LeaseState, now: i64) -> Self {
        let instance = &lease.instance;
        let link = [instance.status_page_url(), instance.home_page_url()].into_iter().find_map(text::link);
        Self {
            query: text::query_of(instance.app(), instance.id()),
            searched: searched(instance),
            id: text::short(instance.id()),
            status: instance.status(),
            is_overridden: instance.overridden_status() != InstanceStatus::Unknown,
            zone: text::short(instance.zone().unwrap_or("-")),
            version: text::short(instance.metadata().get("version").unwrap_or("-")),
            address: shown_address(instance),
            link,
            renewed_ms: lease.is_renewed().then(|| now.saturating_sub(lease.renewed_at)),
            left_ms: lease.expires_at.saturating_sub(now),
            is_preserved: lease.is_preserved,
            sender: lease.registrant.to_string(),
        }
    }

    pub(super) fn class(&self) -> &'static str {
        class(self.status)
    }

    pub(super) fn renewed(&self) -> String {
        self.renewed_ms.map_or_else(|| "none yet".to_owned(), |ms| Span::millis(ms).to_string())
    }

    pub(super) fn left(&self) -> String {
        left(self.left_ms, self.is_preserved)
    }
}

impl Group {
    /// Creates the group of an application with some of its instances.
    pub(super) fn of<'a>(
        registry: &Registry,
        application: &AppView,
        shown: impl Iterator<Item = &'a Record>,
        now: i64,
    ) -> Self {
        // An instance that has just left is missing.
        let leases = shown.filter_map(|record| registry.lease_state(&application.name, record.instance.id()));
        let is_preserved = registry.is_preserved(&application.name);
        Self {
            key: text::parameter(&application.name),
            name: text::short(&application.name),
            counts: counts(application),
            is_preserved,
            is_marked: is_preserved && registry.settings().preservation_by_application,
            rows: leases.map(|lease| Row::of(&lease, now)).collect(),
        }
    }

    pub(super) fn heading(&self) -> Heading<'_> {
        Heading { name: &self.name, counts: &self.counts, is_marked: self.is_marked }
    }
}

/// Returns the class of the badge of a status.
pub(super) fn class(status: InstanceStatus) -> &'static str {
    match status {
        InstanceStatus::Up => "good",
        InstanceStatus::Down => "bad",
        InstanceStatus::OutOfService | InstanceStatus::Starting | InstanceStatus::Unknown => "plain",
    }
}

/// Returns the time until a lease expires, or since then. The script has the same texts.
pub(super) fn left(left_ms: i64, is_preserved: bool) -> String {
    if left_ms >= 0 {
        return Span::millis(left_ms).to_string();
    }
    let since = Span::millis(left_ms.saturating_neg());
    if is_preserved { format!("expired {since} ago, kept") } else { format!("expired {since} ago") }
}

/// Returns the numbers of instances by status, such as `UP (2), DOWN (1)`.
pub(super) fn counts_text(counts: &StatusCounts) -> String {
    let present = InstanceStatus::ALL.into_iter().rev().filter(|status| counts.of(*status) > 0);
    let texts: Vec<_> = present.map(|status| format!("{status} ({})", counts.of(status))).collect();
    texts.join(", ")
}

fn counts(application: &AppView) -> String {
    let counts: StatusCounts = application.records.iter().map(|record| record.instance.status()).collect();
    counts_text(&counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_of_a_lease_is_described() {
        for (ms, preserved, text) in [
            (90_000, false, "1 min 30 s"),
            (0, false, "0 s"),
            (-5_000, false, "expired 5 s ago"),
            (-5_000, true, "expired 5 s ago, kept"),
            (i64::MIN, true, "expired 106751991167 d 7 h ago, kept"),
        ] {
            assert_eq!(left(ms, preserved), text);
        }
    }
}
