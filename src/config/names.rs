//! Names of settings: comparison as in Spring, and suggestions for unknown names.

/// Normalizes a name as Spring does before it compares names: lower case, without dots, dashes and
/// underscores.
pub(crate) fn relaxed(name: &str) -> String {
    relaxed_chars(name).collect()
}

fn relaxed_chars(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|c| !matches!(c, '.' | '-' | '_')).map(|c| c.to_ascii_lowercase())
}

/// Returns the rest of a name after a prefix, compared as [`relaxed`] names are; `None` if the name
/// does not begin with it.
pub(crate) fn after<'n>(start: &str, name: &'n str) -> Option<&'n str> {
    relaxed_chars(start).try_fold(name, |rest, wanted| {
        let rest = rest.trim_start_matches(['.', '-', '_']);
        let found = rest.chars().next()?;
        found.eq_ignore_ascii_case(&wanted).then(|| &rest[found.len_utf8()..])
    })
}

/// Normalizes a name with dots as Spring does: each part in lower case, without dashes and
/// underscores. Text in brackets is unchanged.
pub(crate) fn uniform(name: &str) -> String {
    let (mut uniform, mut in_brackets) = (String::with_capacity(name.len()), false);
    for c in name.chars() {
        match c {
            '[' => {
                // A key in brackets may follow a dot.
                if uniform.ends_with('.') {
                    uniform.pop();
                }
                in_brackets = true;
                uniform.push(c);
            }
            ']' => {
                in_brackets = false;
                uniform.push(c);
            }
            _ if in_brackets => uniform.push(c),
            '-' | '_' => {}
            _ => uniform.extend(c.to_lowercase()),
        }
    }
    uniform
}

/// Returns the rest of a name with dots after a prefix of whole parts, beginning with a dot or a
/// bracket. Returns `None` for another name.
pub(crate) fn rest_after<'n>(prefix: &str, name: &'n str) -> Option<&'n str> {
    let rest = uniform(prefix).chars().try_fold(name, |rest, wanted| {
        let rest = rest.trim_start_matches(['-', '_']);
        let found = rest.chars().next()?;
        found.to_lowercase().eq([wanted]).then(|| &rest[found.len_utf8()..])
    })?;
    rest.starts_with(['.', '[']).then_some(rest)
}

/// Returns the user's key in a name with dots, before a suffix that begins with a dot. Without a
/// suffix, the whole rest after the prefix is the key.
pub(super) fn dotted_key<'n>(prefix: &str, suffix: &str, name: &'n str) -> Option<&'n str> {
    let rest = rest_after(prefix, name)?;
    if suffix.is_empty() {
        return Some(rest.strip_prefix('.').unwrap_or(rest));
    }
    // A key with dots is in brackets.
    let (key, end) = match rest.strip_prefix(".[").or_else(|| rest.strip_prefix('[')) {
        Some(rest) => rest.split_once("].")?,
        None => rest.strip_prefix('.')?.split_once('.')?,
    };
    (uniform(end) == uniform(&suffix[1..])).then_some(key)
}

/// Returns both keys of the user's in a name with dots, separated by a slash: `orders/default` in
/// `lb.clients.orders.hint.default` after the prefix `lb.clients`, with the middle part `hint`.
pub(super) fn dotted_keys(prefix: &str, middle: &str, name: &str) -> Option<String> {
    let rest = rest_after(prefix, name)?;
    let (first, end) = match rest.strip_prefix(".[").or_else(|| rest.strip_prefix('[')) {
        Some(rest) => rest.split_once("].")?,
        None => rest.strip_prefix('.')?.split_once('.')?,
    };
    let second = rest_after(middle, end)?;
    let second = second.strip_prefix('.').unwrap_or(second).trim_matches(['[', ']']);
    (!first.is_empty() && !second.is_empty()).then(|| format!("{first}/{second}"))
}

/// Returns both keys of the user's in the rest of a variable's name, separated by a slash:
/// `ORDERS/DEFAULT` in `ORDERS_HINT_DEFAULT`.
pub(super) fn variable_keys(rest: &str, middle: &str) -> Option<String> {
    rest.match_indices('_').filter(|(at, _)| *at > 0).find_map(|(at, _)| {
        let second = after(middle, &rest[at..])?.strip_prefix('_').filter(|second| !second.is_empty())?;
        Some(format!("{}/{second}", &rest[..at]))
    })
}

/// Returns the user's key in the rest of a variable's name, before a suffix that begins with a dot:
/// `ORDERS` in `ORDERS_RETRY_ENABLED` before `.retry.enabled`.
pub(super) fn variable_key<'n>(rest: &'n str, suffix: &str) -> Option<&'n str> {
    let suffix = relaxed(suffix);
    if suffix.is_empty() {
        return Some(rest);
    }
    let mut keys = rest.match_indices('_').filter(|(at, _)| relaxed(&rest[*at..]) == suffix);
    keys.next_back().map(|(at, _)| &rest[..at]).filter(|key| !key.is_empty())
}

/// Returns the part between both keys of the user's, if the suffix of a map ends in a second one:
/// `hint` for `.hint.<name>`.
pub(super) fn middle_of(suffix: &str) -> Option<&str> {
    suffix.strip_prefix('.')?.split_once(".<").map(|(middle, _)| middle)
}

/// Returns the parts of the name of a map before and after the user's key.
pub(super) fn map_parts(name: &str) -> Option<(&str, &str)> {
    let (prefix, rest) = name.split_once(".<")?;
    Some((prefix, rest.split_once('>').map_or("", |(_, suffix)| suffix)))
}

/// Returns `true` if `known`, which may end in a wildcard, covers this name.
pub(crate) fn covers(known: &str, name: &str) -> bool {
    match known.split_once(['*', '<']) {
        Some((start, _)) => {
            after(start, name).is_some_and(|rest| !start.ends_with('.') || rest.starts_with(['.', '_', '[']))
        }
        None => relaxed_chars(known).eq(relaxed_chars(name)),
    }
}

/// Returns the known name with the smallest edit distance, if that is at most a quarter of the
/// name's length.
#[cfg(any(test, feature = "server"))]
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    nearest_within(name, known, relaxed(name).len() / 4)
}

/// Returns the known name with the smallest edit distance, if that is at most `most`.
#[cfg(any(test, feature = "server"))]
pub(crate) fn nearest_within<'k>(name: &str, known: impl IntoIterator<Item = &'k str>, most: usize) -> Option<&'k str> {
    let name = relaxed(name);
    let distances = known.into_iter().map(|known| (distance(&name, &relaxed(known)), known));
    distances.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= most).map(|(_, known)| known)
}

/// Levenshtein distance of two texts.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_name_are_compared_without_dashes_and_case() {
        assert_eq!(uniform("eureka.client.serviceUrl.default-zone"), "eureka.client.serviceurl.defaultzone");
        assert_eq!(uniform("a.[B.c-d].E_f[0]"), "a[B.c-d].ef[0]");
        for (name, rest) in [
            ("eureka.instance.metadataMap.gRPC_port", Some(".gRPC_port")),
            ("eureka.instance.METADATA-MAP[a.b]", Some("[a.b]")),
            ("eureka.instance.metadata-map", None),
            ("eureka.instance.metadata-maps.a", None),
            ("eureka.instancemetadata-map.a", None),
        ] {
            assert_eq!(rest_after("eureka.instance.metadata-map", name), rest, "{name}");
        }
    }

    #[test]
    fn key_of_a_map_may_stand_in_the_middle_of_a_name() {
        let (prefix, suffix) = map_parts("lb.clients.<service>.retry.max-retries").unwrap();
        for (name, key) in [
            ("lb.clients.orders.retry.max-retries", Some("orders")),
            ("lb.clients.order-service.retry.maxRetries", Some("order-service")),
            ("lb.clients[my.orders].retry.max-retries", Some("my.orders")),
            ("lb.clients.my.orders.retry.max-retries", None),
            ("lb.clients.orders.retry.enabled", None),
            ("lb.clients.orders", None),
        ] {
            assert_eq!(dotted_key(prefix, suffix, name), key, "{name}");
        }
        for (rest, key) in [
            ("ORDERS_RETRY_MAXRETRIES", Some("ORDERS")),
            ("ORDERS_RETRY_MAX_RETRIES", Some("ORDERS")),
            ("ORDER_SERVICE_RETRY_MAXRETRIES", Some("ORDER_SERVICE")),
            ("RETRY_MAXRETRIES", None),
            ("_RETRY_MAXRETRIES", None),
            ("ORDERS_MAXRETRIES", None),
        ] {
            assert_eq!(variable_key(rest, suffix), key, "{rest}");
        }
    }

    #[test]
    fn name_of_a_map_may_have_two_keys() {
        let (prefix, suffix) = map_parts("lb.clients.<service>.health-check.path.<name>").unwrap();
        let middle = middle_of(suffix).unwrap();
        assert_eq!((middle, middle_of(".retry.enabled"), middle_of("")), ("health-check.path", None, None));
        for (name, keys) in [
            ("lb.clients.orders.health-check.path.default", Some("orders/default")),
            ("lb.clients.order-service.healthCheck.path.order-service", Some("order-service/order-service")),
            ("lb.clients[my.orders].health-check.path[my.orders]", Some("my.orders/my.orders")),
            ("lb.clients.orders.health-check.path", None),
            ("lb.clients.orders.health-check.port", None),
            ("lb.clients.orders", None),
        ] {
            assert_eq!(dotted_keys(prefix, middle, name).as_deref(), keys, "{name}");
        }
        for (rest, keys) in [
            ("ORDERS_HEALTHCHECK_PATH_DEFAULT", Some("ORDERS/DEFAULT")),
            ("ORDER_SERVICE_HEALTH_CHECK_PATH_ORDER_SERVICE", Some("ORDER_SERVICE/ORDER_SERVICE")),
            ("ORDERS_HEALTHCHECK_PATH", None),
            ("ORDERS_HEALTHCHECK_PATH_", None),
            ("_HEALTHCHECK_PATH_DEFAULT", None),
        ] {
            assert_eq!(variable_keys(rest, middle).as_deref(), keys, "{rest}");
        }
    }

    #[test]
    fn nearest_name_is_none_if_no_name_is_similar() {
        let known = ["eureka.client.enabled", "eureka.instance.appname"];
        assert_eq!(nearest("EUREKA_CLIENT_ENABELD", known), Some("eureka.client.enabled"));
        assert_eq!(nearest("eureka.instance.metadata-map.zone", known), None);
        assert_eq!(nearest("eureka.host", known), None);
    }
}
