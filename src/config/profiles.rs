//! Profiles: their names, groups, and the expressions that activate documents.

use super::settings::Settings;
use super::value::{Unit, Value};
use super::{InvalidSetting, key::Key};

/// Profile that is active if no other is.
const DEFAULT: &str = "default";
/// Maximum number of active profiles.
const MAX_PROFILES: usize = 100;

const GROUPS: Key<()> = Key::new("spring.profiles.group.<name>", Unit::List, "", "", |(), _| Ok(()));

/// Returns the active profiles in ascending precedence. Those given in code take precedence over
/// `spring.profiles.active`.
pub(super) fn active(settings: &Settings, in_code: &[String]) -> Result<Vec<String>, InvalidSetting> {
    let listed = |name: &str| -> Result<Option<Vec<String>>, InvalidSetting> {
        let Some(value) = settings.find(name, Unit::List)? else { return Ok(None) };
        value.list().iter().map(|name| checked(name, &value)).collect::<Result<_, _>>().map(Some)
    };
    let mut active = match in_code {
        [] => listed("spring.profiles.active")?.unwrap_or_default(),
        in_code => in_code.to_vec(),
    };
    if active.is_empty() {
        active = listed("spring.profiles.default")?.unwrap_or_else(|| vec![DEFAULT.to_owned()]);
    }
    // Included profiles come first, so that the active ones take precedence over them.
    let mut profiles = listed("spring.profiles.include")?.unwrap_or_default();
    profiles.append(&mut active);
    let groups = settings.map_of(&GROUPS)?;
    let mut expanded = Vec::new();
    for profile in profiles {
        expand(profile, &groups, &mut expanded)?;
    }
    Ok(expanded)
}

/// Appends a profile and the members of its group, which take precedence over it.
fn expand(profile: String, groups: &[Value], into: &mut Vec<String>) -> Result<(), InvalidSetting> {
    if into.contains(&profile) {
        return Ok(());
    }
    if into.len() == MAX_PROFILES {
        return Err(InvalidSetting::other(format!("more than {MAX_PROFILES} profiles are active")));
    }
    let group = groups.iter().find(|group| group.key() == profile);
    into.push(profile);
    for member in group.map(Value::list).unwrap_or_default() {
        expand(member.to_owned(), groups, into)?;
    }
    Ok(())
}

/// Refuses a name that cannot be part of a file's name.
fn checked(name: &str, value: &Value) -> Result<String, InvalidSetting> {
    let is_allowed = |c: char| c.is_alphanumeric() || "-_.+@".contains(c);
    if name.chars().all(is_allowed) && !name.starts_with('.') {
        return Ok(name.to_owned());
    }
    Err(value.invalid("names of profiles, separated by commas"))
}

/// Expression over profiles, such as `prod & (eu | !us)`.
#[cfg_attr(not(feature = "files"), allow(dead_code, reason = "only documents of files have expressions"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Profile(String),
    Not(Box<Expression>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

#[cfg_attr(not(feature = "files"), allow(dead_code, reason = "only documents of files have expressions"))]
impl Expression {
    /// Parses an expression. Returns `None` if it is malformed, or mixes `&` and `|` without
    /// parentheses.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text, depth: 0 };
        let expression = parser.expression()?;
        parser.rest.trim().is_empty().then_some(expression)
    }

    pub(super) fn is_met(&self, profiles: &[String]) -> bool {
        match self {
            Self::Profile(name) => profiles.contains(name),
            Self::Not(inner) => !inner.is_met(profiles),
            Self::All(parts) => parts.iter().all(|part| part.is_met(profiles)),
            Self::Any(parts) => parts.iter().any(|part| part.is_met(profiles)),
        }
    }
}

/// Maximum depth of parentheses and negations.
const MAX_DEPTH: usize = 32;

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, token: char) -> bool {
        let rest = self.rest.trim_start();
        let Some(after) = rest.strip_prefix(token) else { return false };
        self.rest = after;
        true
    }

    fn expression(&mut self) -> Option<Expression> {
        let first = self.operand()?;
        let mut parts = vec![first];
        let mut operator = None;
        while let Some(found) = ['&', '|'].into_iter().find(|token| self.take(*token)) {
            if *operator.get_or_insert(found) != found {
                return None;
            }
            parts.push(self.operand()?);
        }
        match operator {
            None => parts.pop(),
            Some('&') => Some(Expression::All(parts)),
            Some(_) => Some(Expression::Any(parts)),
        }
    }

    fn operand(&mut self) -> Option<Expression> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let operand = if self.take('!') {
            Expression::Not(Box::new(self.operand()?))
        } else if self.take('(') {
            let inner = self.expression()?;
            if !self.take(')') {
                return None;
            }
            inner
        } else {
            let rest = self.rest.trim_start();
            let end = rest.find(['&', '|', '!', '(', ')']).unwrap_or(rest.len());
            let name = rest[..end].trim_end();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return None;
            }
            self.rest = &rest[end..];
            Expression::Profile(name.to_owned())
        };
        self.depth -= 1;
        Some(operand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expression_is_met_as_in_spring() {
        let profiles = ["prod".to_owned(), "eu-1".to_owned()];
        for (text, met) in [
            ("prod", true),
            ("test", false),
            ("!test", true),
            ("!prod", false),
            ("prod & eu-1", true),
            ("prod&test", false),
            ("test | eu-1", true),
            ("prod & (test | eu-1)", true),
            ("prod & !(test | us)", true),
            ("!(prod & eu-1)", false),
            (" ( prod ) ", true),
        ] {
            assert_eq!(Expression::parse(text).map(|e| e.is_met(&profiles)), Some(met), "{text}");
        }
        for text in ["", "a & b | c", "a b", "(a", "a)", "&a", "a &", "!", "()", &"(".repeat(10_000)] {
            assert_eq!(Expression::parse(text), None, "{text}");
        }
    }
}
