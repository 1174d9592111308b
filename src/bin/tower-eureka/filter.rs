//! Filter of the log from the variable `RUST_LOG`.

use tracing_subscriber::EnvFilter;

const VARIABLE: &str = "RUST_LOG";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Returns the filter that the variable sets, or that of the default level.
pub(crate) fn filter(default: &str) -> Result<EnvFilter, String> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(EnvFilter::new(default)) };
    let Some(text) = value.to_str() else { return Err(format!("{VARIABLE} is no Unicode text")) };
    if text.trim().is_empty() {
        return Ok(EnvFilter::new(default));
    }
    // A single word that is not a level is a target: the filter would log only this target.
    if let Some((word, level)) = text.split(',').find_map(|part| Some((part.trim(), mistyped_level(part.trim())?))) {
        return Err(format!("{VARIABLE} is '{text}': '{word}' is no level; did you mean {level}?"));
    }
    EnvFilter::try_new(text).map_err(|error| {
        format!("{VARIABLE} is '{text}': {error}; expected levels like info or tower_eureka=debug,h2=off")
    })
}

/// Returns the level that a mistyped word stands for: the word begins with the level, as in
/// `warning`, or differs from it in one letter.
fn mistyped_level(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    if word.len() < 3 || word.contains(|c: char| !c.is_ascii_alphabetic()) || LEVELS.contains(&&*word) {
        return None;
    }
    LEVELS.into_iter().find(|level| (*level != "off" && word.starts_with(level)) || is_near(&word, level))
}

/// Returns `true` if one letter was dropped, doubled or replaced, or two neighbours were swapped.
fn is_near(word: &str, level: &str) -> bool {
    let (word, level) = (word.as_bytes(), level.as_bytes());
    let start = word.iter().zip(level).take_while(|(a, b)| a == b).count();
    let (word, level) = (&word[start..], &level[start..]);
    match (word, level) {
        ([_, word @ ..], [_, level @ ..]) if word == level => true,
        ([_, word @ ..], level) if word == level => true,
        (word, [_, level @ ..]) if word == level => true,
        ([a, b, word @ ..], [c, d, level @ ..]) => (a, b) == (d, c) && word == level,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::mistyped_level;

    #[test]
    fn mistyped_level_is_recognised() {
        for (word, level) in [
            ("warning", "warn"),
            ("inof", "info"),
            ("Debg", "debug"),
            ("errorr", "error"),
            ("tracee", "trace"),
            ("wran", "warn"),
            ("oof", "off"),
        ] {
            assert_eq!(mistyped_level(word), Some(level), "{word}");
        }
        for word in
            ["info", "WARN", "off", "h2", "hyper", "tower", "tower_eureka", "tonic", "tokio", "3", "a=b", "ring"]
        {
            assert_eq!(mistyped_level(word), None, "{word}");
        }
    }
}
