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

/// Returns the value of a metadata entry without secrets: masked if its key names one, else without
/// the credentials of its URLs.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) fn masked_metadata<'a>(key: &str, value: &'a str) -> Cow<'a, str> {
    if is_secret(key) { MASK.into() } else { masked_urls(value) }
}

/// Replaces the credentials of the URLs in a text.
pub(crate) fn masked_urls(text: &str) -> Cow<'_, str> {
    if !text.contains('@') && !text.contains("://") {
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
    let Some((credentials, rest)) = text.rsplit_once('@') else { return masked_port(text) };
    match scheme(credentials) {
        Some(scheme) => format!("{scheme}://{MASK}@{rest}").into(),
        None if credentials.contains(':') => format!("{MASK}@{rest}").into(),
        None => Cow::Borrowed(text),
    }
}

/// Masks a URL without `@` whose port is no number: it may begin with a user and a password.
fn masked_port(text: &str) -> Cow<'_, str> {
    let Some(scheme) = scheme(text) else { return Cow::Borrowed(text) };
    let rest = &text[scheme.len() + "://".len()..];
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let after_host = if authority.starts_with('[') { authority.split_once(']') } else { authority.split_once(':') };
    let port = after_host.map_or("", |(_, port)| port.trim_start_matches(':'));
    if port.starts_with("${") || port.trim_end().bytes().all(|byte| byte.is_ascii_digit()) {
        return Cow::Borrowed(text);
    }
    format!("{scheme}://{MASK}").into()
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
            ("http://eureka:S3cr3t,Word", "http://***"),
            ("http://eureka:S3cr3t/eureka/", "http://***"),
            ("http://a/,http://eureka:S3cr3t", "http://a/,http://***"),
            ("http://a:8761", "http://a:8761"),
            ("http://a:8761/eureka/,http://b:8762/eureka/", "http://a:8761/eureka/,http://b:8762/eureka/"),
            ("http://[::1]:8761/eureka/ ", "http://[::1]:8761/eureka/ "),
            ("http://a:${PORT:8761}/eureka/", "http://a:${PORT:8761}/eureka/"),
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
