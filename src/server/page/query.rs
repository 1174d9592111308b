//! Query of the page: text, status and number of the page.

use std::fmt;

use super::text::{parameter, short};
use crate::model::{Instance, InstanceStatus, shown_address};
use crate::server::http::pairs;

/// Maximum number of characters of the search text.
const MAX_TEXT: usize = 200;

/// Instances that a page shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Text in lower case. The search text of an instance must contain each of its words.
    pub(super) text: String,
    pub(super) status: Option<InstanceStatus>,
    /// Number of the page, from 1.
    pub(super) page: usize,
}

/// Query that the page cannot show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadQuery {
    Status(String),
    Page(String),
    TooLong,
}

impl Query {
    /// Parses a query. Parameters of other names have no effect, since tools add some of their own.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, BadQuery> {
        let mut parsed = Self { page: 1, ..Self::default() };
        for (name, value) in pairs(query) {
            let value = value.trim();
            match &*name {
                "q" if value.chars().count() > MAX_TEXT => return Err(BadQuery::TooLong),
                "q" => parsed.text = value.to_lowercase(),
                "status" if value.is_empty() => parsed.status = None,
                "status" => {
                    let status = value.to_ascii_uppercase().parse();
                    parsed.status = Some(status.map_err(|_| BadQuery::Status(short(value)))?);
                }
                "page" => {
                    let page = value.parse().ok().filter(|page| *page > 0);
                    parsed.page = page.ok_or_else(|| BadQuery::Page(short(value)))?;
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// Returns true if all instances match.
    pub(super) fn matches_all(&self) -> bool {
        self.text.is_empty() && self.status.is_none()
    }

    /// Returns true if only instances of this status match.
    pub(super) fn selects(&self, status: &InstanceStatus) -> bool {
        self.status == Some(*status)
    }

    /// Returns true if the instance has the status, and each word of the text is part of its search
    /// text.
    pub(super) fn matches(&self, instance: &Instance) -> bool {
        if self.status.is_some_and(|status| status != instance.status()) {
            return false;
        }
        if self.text.is_empty() {
            return true;
        }
        let searched = searched(instance).to_lowercase();
        self.text.split_whitespace().all(|word| searched.contains(word))
    }

    /// Returns the query of another page of the same instances.
    pub(super) fn with_page(&self, page: usize) -> String {
        let status = self.status.map_or("", InstanceStatus::as_str);
        format!("?q={}&status={status}&page={page}", parameter(&self.text))
    }
}

/// Returns the text that a search looks at, here and in the browser: the names of an instance, one
/// a line. A name that is part of one before is left out.
pub(super) fn searched(instance: &Instance) -> String {
    let address = shown_address(instance);
    let names = [
        Some(instance.app()),
        Some(instance.id()),
        Some(&*address),
        instance.host_name(),
        instance.ip_addr(),
        instance.zone(),
        instance.metadata().get("version"),
        Some(instance.status().as_str()),
    ];
    let mut text = String::new();
    for name in names.into_iter().flatten() {
        if !text.contains(name) {
            text.push_str(name);
            text.push('\n');
        }
    }
    text
}

impl fmt::Display for BadQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => {
                let known = InstanceStatus::ALL.map(InstanceStatus::as_str).join(", ");
                write!(f, "cannot show instances of the status {status}: there is no such status; use one of {known}")
            }
            Self::Page(page) => write!(f, "cannot show the page {page}: pages have numbers from 1"),
            Self::TooLong => {
                write!(f, "cannot search: the text is longer than {MAX_TEXT} characters; use a shorter one")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_parsed_or_refused_with_advice() {
        let parsed = |text| Query::parse(Some(text));
        assert_eq!(parsed(""), Ok(Query { page: 1, ..Query::default() }));
        let all = Query { text: "rack a".into(), status: Some(InstanceStatus::OutOfService), page: 3 };
        assert_eq!(parsed("q=+Rack%20A+&status=out_of_service&page=3&utm_source=x"), Ok(all.clone()));
        assert_eq!(Query::parse(Some(&all.with_page(3)[1..])), Ok(all));
        assert_eq!(parsed("status=&page=1").map(|query| query.matches_all()), Ok(true));
        for bad in ["status=GONE", "page=0", "page=-1", "page=x", "page=", "page=99999999999999999999"] {
            let error = parsed(bad).unwrap_err().to_string();
            assert!(error.starts_with("cannot show"), "{error}");
        }
        for (length, expected) in [(200, Ok(200)), (201, Err(BadQuery::TooLong))] {
            let text = format!("q={}", "ü".repeat(length));
            assert_eq!(Query::parse(Some(&text)).map(|query| query.text.chars().count()), expected);
        }
    }

    #[test]
    fn instance_matches_by_each_word_and_by_status() {
        let instance = Instance::builder("orders")
            .id("pod-7:orders:8080")
            .host_name("pod-7.Rack-A")
            .ip_addr("10.0.0.7")
            .port(8080)
            .metadata("zone", "eu-1b")
            .metadata("version", "2.4.1")
            .build()
            .unwrap();
        for (text, expected) in [
            ("", true),
            ("q=ORDERS", true),
            ("q=pod-7 rack-a", true),
            ("q=eu-1b 2.4.1", true),
            ("q=10.0.0.7", true),
            ("q=:8080", true),
            ("q=orders nothing", false),
            ("status=UP", true),
            ("status=DOWN", false),
            ("q=up", true),
            ("q=8080 up ORDERS 10.0.0.7 rack-a eu-1b 2.4.1", true),
        ] {
            assert_eq!(Query::parse(Some(text)).unwrap().matches(&instance), expected, "{text}");
        }
    }
}
