//! Names of settings: comparison as in Spring, and suggestions for unknown names.

/// Normalizes a name as Spring does before it compares names: lower case, without dots, dashes and
/// underscores.
pub(crate) fn relaxed(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '.' | '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns the rest of a name after a prefix, compared as [`relaxed`] names are; `None` if the name
/// does not begin with it.
pub(crate) fn after<'n>(start: &str, name: &'n str) -> Option<&'n str> {
    relaxed(start).chars().try_fold(name, |rest, wanted| {
        let rest = rest.trim_start_matches(['.', '-', '_']);
        let found = rest.chars().next()?;
        found.eq_ignore_ascii_case(&wanted).then(|| &rest[found.len_utf8()..])
    })
}

/// Returns the known name with the smallest edit distance, if that is at most a quarter of the
/// name's length.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    nearest_within(name, known, relaxed(name).len() / 4)
}

/// Returns the known name with the smallest edit distance, if that is at most `most`.
pub(crate) fn nearest_within<'k>(name: &str, known: impl IntoIterator<Item = &'k str>, most: usize) -> Option<&'k str> {
    let name = relaxed(name);
    let distances = known.into_iter().map(|known| (distance(&name, &relaxed(known)), known));
    distances.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= most).map(|(_, known)| known)
}

/// Levenshtein distance of two texts.
fn distance(a: &str, b: &str) -> usize {
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
    fn nearest_name_is_none_if_no_name_is_similar() {
        let known = ["eureka.client.enabled", "eureka.instance.appname"];
        assert_eq!(nearest("EUREKA_CLIENT_ENABELD", known), Some("eureka.client.enabled"));
        assert_eq!(nearest("eureka.instance.metadata-map.zone", known), None);
        assert_eq!(nearest("eureka.host", known), None);
    }
}
