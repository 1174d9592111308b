//! Values that may hold secrets.

use std::borrow::Cow;

use super::names::relaxed;

/// Shown in place of a secret.
pub(crate) const MASK: &str = "***";

/// Returns `true` if a setting of this name may hold a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    // Shortened, so that mistyped names are covered as well.
    const PARTS: [&str; 7] = ["passw", "pasw", "passphrase", "secret", "token", "credential", "authorization"];
    let name = relaxed(name);
    PARTS.iter().any(|part| name.contains(part)) || name.ends_with("key") || name == "vcapservices"
}

/// Returns `true` if a text with placeholders may hold the default of a secret, such as
/// `${ADMIN_PASSWORD:admin}`.
pub(crate) fn has_secret_placeholder(text: &str) -> bool {
    text.contains("${") && is_secret(text)
        || text.split("${").skip(1).any(|rest| is_secret(rest.split([':', '}']).next().unwrap_or_default()))
}

/// Replaces the credentials of the URLs in a text.
pub(crate) fn masked_urls(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    // A password may contain commas. Pieces are URLs of their own only if each has a scheme.
    let pieces: Vec<&str> = text.split(',').collect();
    if pieces.iter().all(|piece| scheme(piece).is_some()) {
        return pieces.into_iter().map(masked_url).collect::<Vec<_>>().join(",").into();
    }
    masked_url(text)
}

fn masked_url(text: &str) -> Cow<'_, str> {
    let Some((credentials, rest)) = text.rsplit_once('@') else { return Cow::Borrowed(text) };
    match scheme(credentials) {
        Some(scheme) => format!("{scheme}://{MASK}@{rest}").into(),
        None if credentials.contains(':') => format!("{MASK}@{rest}").into(),
        None => Cow::Borrowed(text),
    }
}

/// Returns the scheme of a URL, with the blanks before it. Text before another `://` may be a
/// secret.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once("://")?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let name = scheme.trim_start();
    (!name.is_empty() && name.chars().all(is_part)).then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_urls_are_masked() {
        for (text, shown) in [
            ("http://a/eureka", "http://a/eureka"),
            ("http://u:p@a/eureka", "http://***@a/eureka"),
            ("http://a/,http://u:p@b/", "http://a/,http://***@b/"),
            ("http://u:p,q@a/", "http://***@a/"),
            ("http://u:p@q@a/", "http://***@a/"),
            ("u:p@a", "***@a"),
            ("u:p@a:8761/eureka,http://u:p@b:8761/eureka", "***@b:8761/eureka"),
            ("http://u:p@a/, u:p@b/", "http://***@b/"),
            ("http://u:p@a/, https://u:p@b/", "http://***@a/, https://***@b/"),
            ("u:p@a://b@c", "***@c"),
            ("me@example.com", "me@example.com"),
        ] {
            assert_eq!(masked_urls(text), shown);
        }
    }

    #[test]
    fn names_of_secrets_are_recognized() {
        for name in [
            "eureka.client.proxy-password",
            "EUREKA_CLIENT_TLS_KEYSTOREPASSWORD",
            "my.api-key",
            "auth.clientSecret",
            "eureka.instance.metadata-map.token",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["eureka.client.service-url.defaultZone", "eureka.client.tls.key-store", "eureka.instance.hostname"]
        {
            assert!(!is_secret(name), "{name}");
        }
    }
}
