//! Names of settings: compared as Spring does, and the nearest one for a name that is unknown.

/// A name as Spring compares it, whatever separates its parts: lower case, letters and digits only.
pub(crate) fn relaxed(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '.' | '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// The rest of a name behind this beginning, compared as [`relaxed`] names are.
pub(crate) fn after<'n>(start: &str, name: &'n str) -> Option<&'n str> {
    relaxed(start).chars().try_fold(name, |rest, wanted| {
        let rest = rest.trim_start_matches(['.', '-', '_']);
        let found = rest.chars().next()?;
        found.eq_ignore_ascii_case(&wanted).then(|| &rest[found.len_utf8()..])
    })
}

/// The known name that takes the fewest edits to reach, if it is near enough to have been meant.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Most names begin alike, so that a quarter of the letters is much.
    nearest_within(name, known, relaxed(name).len() / 4)
}

/// The known name that takes the fewest edits to reach, if it takes at most this many.
pub(crate) fn nearest_within<'k>(name: &str, known: impl IntoIterator<Item = &'k str>, most: usize) -> Option<&'k str> {
    let name = relaxed(name);
    let distances = known.into_iter().map(|known| (distance(&name, &relaxed(known)), known));
    distances.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= most).map(|(_, known)| known)
}

/// Levenshtein's distance.
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
    fn nearest_name_is_none_if_all_are_far() {
        let known = ["eureka.client.enabled", "eureka.instance.appname"];
        assert_eq!(nearest("EUREKA_CLIENT_ENABELD", known), Some("eureka.client.enabled"));
        assert_eq!(nearest("eureka.instance.metadata-map.zone", known), None);
        assert_eq!(nearest("eureka.host", known), None);
    }
}
