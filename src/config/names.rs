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
    fn nearest_name_is_none_if_no_name_is_similar() {
        let known = ["eureka.client.enabled", "eureka.instance.appname"];
        assert_eq!(nearest("EUREKA_CLIENT_ENABELD", known), Some("eureka.client.enabled"));
        assert_eq!(nearest("eureka.instance.metadata-map.zone", known), None);
        assert_eq!(nearest("eureka.host", known), None);
    }
}
