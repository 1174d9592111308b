//! Values of `${random.*}`.

/// Returns the value of `${random.KIND}`. The seed returns independent random numbers for the
/// arguments 0 and 1. The error is a clause.
pub(super) fn value(kind: &str, seed: impl Fn(u64) -> u64) -> Result<String, String> {
    let hex = || format!("{:016x}{:016x}", seed(0), seed(1));
    match kind {
        "value" => return Ok(hex()),
        "uuid" => {
            // Version 4, variant 1.
            let (high, low) = (seed(0) & !0xf000 | 0x4000, seed(1) >> 2 | 1 << 63);
            let hex = format!("{high:016x}{low:016x}");
            let [a, b, c, d, e] = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
            return Ok(format!("{a}-{b}-{c}-{d}-{e}"));
        }
        "int" => return Ok((seed(0) as i32).to_string()),
        "long" => return Ok((seed(0) as i64).to_string()),
        _ => {}
    }
    let range = kind.strip_prefix("int").or_else(|| kind.strip_prefix("long"));
    let range = range.filter(|range| range.len() > 2).and_then(|range| {
        // Spring accepts any character around the range.
        let mut inner = range.chars();
        inner.next();
        inner.next_back();
        let (low, high) = match inner.as_str().split_once(',') {
            Some((low, high)) => (low.trim().parse::<i64>().ok()?, high.trim().parse::<i64>().ok()?),
            None => (0, inner.as_str().trim().parse().ok()?),
        };
        let size = high.checked_sub(low).filter(|size| *size > 0)?;
        Some((low, size))
    });
    match range {
        Some((low, size)) => Ok((low + (seed(0) % size as u64) as i64).to_string()),
        None => {
            Err(format!("placeholder ${{random.{kind}}} is unknown: write value, uuid, int, long, int(10) or int[1,5]"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_value_has_the_form_of_its_kind() {
        let seed = |n: u64| if n == 0 { u64::MAX } else { 0 };
        let of = |kind: &str| value(kind, seed).unwrap();
        assert_eq!(of("value"), "ffffffffffffffff0000000000000000");
        assert_eq!(of("uuid"), "ffffffff-ffff-4fff-8000-000000000000");
        assert_eq!((of("int"), of("long")), ("-1".into(), "-1".into()));
        for n in 0..20 {
            let number = value("int[1,5]", |_| n).unwrap().parse::<i64>().unwrap();
            assert!((1..5).contains(&number));
            assert!((0..10).contains(&value("long(10)", |_| n).unwrap().parse::<i64>().unwrap()));
        }
        for kind in ["", "integer", "int()", "int[5,1]", "int(x)", "port", "int(0)", "int\u{1f600}"] {
            assert!(value(kind, seed).unwrap_err().contains("is unknown"), "{kind}");
        }
    }
}
