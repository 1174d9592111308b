//! Placeholders in values: `${name}`, `${name:default}`, `${random.value}`.

use super::mask::{is_secret, masked_urls};
use super::names::uniform;
use super::{Settings, builtin, random};

/// Maximum length of a resolved value in bytes.
const MAX_LENGTH: usize = 64 << 10;
/// Maximum number of placeholders that one value may lead to, its defaults included.
const MAX_PLACEHOLDERS: usize = 1000;

/// Text with its placeholders resolved.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) text: String,
    /// A placeholder brought in the value of a secret.
    pub(super) is_secret: bool,
}

/// Resolution of one value.
pub(super) struct Resolution<'s> {
    settings: &'s Settings,
    /// Names whose values are being resolved.
    open: Vec<String>,
    count: usize,
    is_secret: bool,
}

impl<'s> Resolution<'s> {
    /// Resolves the value of the entry with this name. The error is a clause that follows the place
    /// of the value, without a value.
    pub(super) fn resolve(settings: &'s Settings, name: &str, text: &str) -> Result<Resolved, String> {
        let mut resolution = Self { settings, open: vec![uniform(name)], count: 0, is_secret: false };
        let text = resolution.text(text)?;
        Ok(Resolved { text, is_secret: resolution.is_secret })
    }

    fn text(&mut self, text: &str) -> Result<String, String> {
        let (mut resolved, mut rest) = (String::new(), text);
        while let Some(start) = rest.find("${") {
            // A backslash makes it plain text.
            if let Some(before) = rest[..start].strip_suffix('\\') {
                resolved.push_str(before);
                resolved.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            resolved.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            let Some(end) = closing(inner) else {
                return Err("placeholder without a closing brace: write ${NAME} or ${NAME:DEFAULT}".into());
            };
            let at = text.len() - rest.len() + start;
            self.placeholder(&inner[..end], (text, at), &mut resolved)?;
            if resolved.len() > MAX_LENGTH {
                return Err(format!("placeholders lead to more than {MAX_LENGTH} bytes"));
            }
            rest = &inner[end + 1..];
        }
        resolved.push_str(rest);
        Ok(resolved)
    }

    /// Appends the value of a placeholder, which is given without its braces, and with the text and
    /// position where it stands.
    fn placeholder(&mut self, inner: &str, place: (&str, usize), into: &mut String) -> Result<(), String> {
        self.count += 1;
        if self.count > MAX_PLACEHOLDERS {
            return Err(format!("leads to more than {MAX_PLACEHOLDERS} placeholders"));
        }
        let (name, default) = match separator(inner) {
            Some(at) => (&inner[..at], Some(&inner[at + 1..])),
            None => (inner, None),
        };
        let name = self.text(name)?;
        let name = name.trim();
        // The default of a secret is one as well.
        self.is_secret |= is_secret(name);
        if let Some(value) = self.value(name, place)? {
            into.push_str(&value);
            return Ok(());
        }
        match default {
            Some(default) => {
                let default = self.text(default)?;
                into.push_str(&default);
                Ok(())
            }
            None if self.is_in_secret(inner, place) => {
                Err("placeholder in a secret has no value: set it, or write \\${ for plain text".into())
            }
            None => Err(format!("placeholder ${{{name}}} has no value: set it, or write ${{{name}:DEFAULT}}")),
        }
    }

    /// Returns `true` if a placeholder is only a part of a secret or of the credentials of a URL.
    /// It may be plain text, and its name a part of the password.
    fn is_in_secret(&self, inner: &str, (text, at): (&str, usize)) -> bool {
        let end = at + "${}".len() + inner.len();
        let (before, placeholder, after) = (&text[..at], &text[at..end], &text[end..]);
        if self.open.iter().any(|name| is_secret(name)) {
            return placeholder != text;
        }
        let is_whole = before.ends_with(['/', ':']) && after.starts_with([':', '@']);
        after.contains('@') && !is_whole && !masked_urls(text).contains(placeholder)
    }

    fn value(&mut self, name: &str, place: (&str, usize)) -> Result<Option<String>, String> {
        if let Some(kind) = name.strip_prefix("random.") {
            // Each setting has its own random values, whoever refers to it.
            let seed = self.settings.seed((self.open.last(), place));
            return random::value(kind, seed).map(Some);
        }
        let Some(entry) = self.settings.placeholder_entry(name) else {
            let of_page = self.open.first().and_then(|setting| builtin::host_of_page(self.settings, setting, name));
            return Ok(of_page.or_else(|| self.settings.built_in(name)));
        };
        let wanted = uniform(&entry.name);
        if self.open.contains(&wanted) {
            return Err(format!("placeholder ${{{name}}} leads back to itself: {}, {name}", self.open.join(", ")));
        }
        self.is_secret |= is_secret(&entry.name);
        if !entry.text.contains("${") {
            return Ok(Some(entry.text.clone()));
        }
        self.open.push(wanted);
        let value = self.text(&entry.text);
        self.open.pop();
        value.map(Some)
    }
}

/// Returns the position of the brace that closes a placeholder, behind those of nested ones.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        match c {
            '$' if characters.peek().is_some_and(|(_, next)| *next == '{') => {
                characters.next();
                depth += 1;
            }
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Returns the position of the colon between name and default, which is outside nested
/// placeholders.
fn separator(inner: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, c) in inner.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => return Some(at),
            _ => {}
        }
        previous = c;
    }
    None
}
