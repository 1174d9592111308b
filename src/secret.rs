//! Secrets, which no `Debug` shows.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;

/// Text that `Debug` does not show, such as a password or a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself, which must not be displayed.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Creates the value of an `Authorization` header with Basic credentials.
pub(crate) fn basic(user: &str, password: &str) -> HeaderValue {
    let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).expect("base64 is a valid header value");
    value.set_sensitive(true);
    value
}

/// Creates Basic credentials from the `user:password` of a URL, which is percent-decoded and split
/// at the first colon. Java clients send none if the password contains another colon.
///
/// # Errors
/// When the decoded text is not UTF-8.
pub(crate) fn basic_of_userinfo(userinfo: &str) -> Result<HeaderValue, ()> {
    let decode = |text| percent_decode_str(text).decode_utf8().map_err(drop);
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    Ok(basic(&decode(user)?, &decode(password)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_secrets_shows_nothing_of_them() {
        let text = format!("{:?} {:?}", Secret::new("hunter2"), basic("user", "hunter2"));
        assert!(!text.contains("hunter2") && !text.contains("dXNlcjpodW50ZXIy"), "{text}");
        assert_eq!(basic("user", "hunter2"), "Basic dXNlcjpodW50ZXIy");
        assert_eq!(basic_of_userinfo("user:hunter%32"), Ok(basic("user", "hunter2")));
    }
}
