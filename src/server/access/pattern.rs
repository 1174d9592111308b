//! Texts with a wildcard, and names that contain the part that it stands for.

use std::fmt;
use std::sync::Arc;

use super::identity::{Applications, Identity, Kind, Pattern, Roles};
use crate::model::app_name;
use crate::untrusted::Excerpt;

/// Stands for the captured part in names and applications of a grant.
const PLACE: &str = "{}";

/// Text that may contain one `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wild {
    before: String,
    after: Option<String>,
}

impl Wild {
    pub(super) fn new(text: &str) -> Self {
        match text.split_once('*') {
            Some((before, after)) => Self { before: before.into(), after: Some(after.into()) },
            None => Self { before: text.into(), after: None },
        }
    }

    pub(super) fn is_wild(&self) -> bool {
        self.after.is_some()
    }

    /// Returns true for a text with more than one `*`, of which only the first is a wildcard.
    pub(super) fn has_several(&self) -> bool {
        self.after.as_ref().is_some_and(|after| after.contains('*'))
    }

    /// Returns the part of the text that the wildcard stands for, which is never empty. Without a
    /// wildcard it is the whole text.
    pub(super) fn capture<'t>(&self, text: &'t str) -> Option<&'t str> {
        let Some(after) = &self.after else { return (text == self.before).then_some(text) };
        let captured = text.strip_prefix(&*self.before)?.strip_suffix(&**after)?;
        (!captured.is_empty()).then_some(captured)
    }
}

/// Name, roles and applications of a row of the policy. Name and applications may contain `{}`,
/// which stands for the part that the wildcard of a credential matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) name: String,
    pub(super) roles: Roles,
    pub(super) applications: Vec<String>,
}

/// Describes who may do what.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} may {}", self.name, self.roles)?;
        match &*self.applications {
            [] => Ok(()),
            names => write!(f, " ({})", names.join(",")),
        }
    }
}

impl Grant {
    pub(super) fn new(name: &str, roles: Roles, applications: &str) -> Self {
        Self { name: name.into(), roles, applications: Roles::names(applications).map(str::to_owned).collect() }
    }

    /// Checks the names of the applications, so that none of them stands for others than it seems.
    ///
    /// # Errors
    /// Returns the reason for which a name is unusable.
    pub(super) fn check(&self) -> Result<(), String> {
        for name in &self.applications {
            let shown = Excerpt(name).to_string();
            if name.trim().is_empty() {
                return Err("the name of an application is blank".into());
            }
            if name.contains([',', ' ', '\t']) {
                return Err(format!("{shown:?} has a comma or a blank, but is the name of one application"));
            }
            if name.strip_suffix('*').unwrap_or(name).contains('*') {
                return Err(format!("{shown:?} is no name of applications: * stands at the end, as in SHOP-*"));
            }
        }
        Ok(())
    }

    /// Checks the grant of callers without credentials.
    ///
    /// # Errors
    /// Returns the reason for which a name is unusable.
    pub(super) fn check_anonymous(&self) -> Result<(), String> {
        if self.has_place() {
            return Err("{} stands for a part of a certificate or of the subject of a token".into());
        }
        self.check()
    }

    /// Returns true if the name or an application contains the place of a captured part.
    pub(super) fn has_place(&self) -> bool {
        self.applications.iter().chain([&self.name]).any(|text| text.contains(PLACE))
    }

    /// Creates the grant of callers without credentials.
    pub(super) fn anonymous(roles: Roles, applications: &str) -> Self {
        Self::new(Identity::ANONYMOUS, roles, applications)
    }

    /// Returns the identity of callers without credentials.
    pub(super) fn anonymous_identity(&self) -> Identity {
        Identity::of_kind(Kind::Anonymous, self.name.as_str().into(), self.roles, self.applications(""))
    }

    /// Returns the identity of a caller whose credential of this kind has this captured part.
    ///
    /// The part is text from a certificate or a token. It is a single literal name, whatever it
    /// contains.
    pub(super) fn identity(&self, kind: Kind, captured: &str) -> Identity {
        // A name without the part is one of the policy: an identity may have several credentials.
        let kind = if self.name.contains(PLACE) { kind } else { Kind::User };
        let name = self.name.replace(PLACE, captured);
        Identity::of_kind(kind, name.into(), self.roles, self.applications(captured))
    }

    fn applications(&self, captured: &str) -> Applications {
        if !self.applications.iter().any(|name| name.contains(PLACE)) {
            return Applications::named(self.applications.iter().map(String::as_str));
        }
        // A captured `*` is no wildcard.
        let pattern = |template: &String| match template.strip_suffix('*') {
            Some(beginning) => Pattern::Beginning(app_name(&beginning.replace(PLACE, captured))),
            None => Pattern::Name(app_name(&template.replace(PLACE, captured))),
        };
        Applications::Named(self.applications.iter().map(pattern).collect::<Arc<[_]>>())
    }

    /// Returns the applications that the row names without the help of a credential. Nobody else
    /// may register them.
    pub(super) fn reserved(&self) -> Vec<Pattern> {
        let literal: Vec<_> =
            self.applications.iter().filter(|name| !name.contains(PLACE)).map(String::as_str).collect();
        match Applications::named(literal) {
            Applications::Unclaimed => Vec::new(),
            Applications::Named(patterns) => patterns.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_captures_a_part_that_is_not_empty() {
        for (pattern, text, expected) in [
            ("orders", "orders", Some("orders")),
            ("orders", "orders2", None),
            ("*", "orders", Some("orders")),
            ("*", "", None),
            ("spiffe://shop/*", "spiffe://shop/orders", Some("orders")),
            ("spiffe://shop/*", "spiffe://shop/", None),
            ("*.internal", "orders.internal", Some("orders")),
            ("a*a", "a", None),
        ] {
            assert_eq!(Wild::new(pattern).capture(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn captured_text_is_one_literal_name() {
        let grant = Grant::new("svc-{}", Roles::ALL, "{}, {}-canary");
        for hostile in ["*", "a,b", "orders *"] {
            let identity = grant.identity(Kind::Subject, hostile);
            assert!(!identity.applications().names("ORDERS") && !identity.applications().names("B"), "{hostile}");
        }
        let identity = grant.identity(Kind::Subject, "orders");
        assert_eq!((identity.name(), &**identity.key()), ("svc-orders", "jwt:svc-orders"));
        assert_eq!(identity.applications().to_string(), "ORDERS,ORDERS-CANARY");
    }
}
