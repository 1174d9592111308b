//! Metrics in the JSON format of Spring's actuator.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::families::{Families, Kind};
use super::measured::{self, Measured};

/// Returns the names of all metrics.
pub(in crate::server) fn names(families: &Families) -> Value {
    let names: BTreeSet<_> = families.0.iter().map(|family| family.name).chain([measured::NAME]).collect();
    json!({ "names": names })
}

/// Returns one metric: the sum of its samples that have all of these labels, and the labels that
/// remain. `None` if there is no such metric, or no such sample.
pub(in crate::server) fn one(
    families: &Families,
    measured: &Measured,
    name: &str,
    tags: &[(&str, &str)],
) -> Option<Value> {
    if name == measured::NAME {
        let labels = ["operation", "status"];
        let totals = measured.totals().filter(|(values, ..)| has_all(&labels, values, tags));
        let totals: Vec<_> = totals.collect();
        if totals.is_empty() && !tags.is_empty() {
            return None;
        }
        let values = totals.iter().map(|(values, ..)| &values[..]);
        let (count, seconds) = totals.iter().fold((0, 0.0), |(n, time), (_, count, sum)| (n + count, time + sum));
        let measurements = json!([
            {"statistic": "COUNT", "value": count},
            {"statistic": "TOTAL_TIME", "value": seconds},
        ]);
        return Some(document(name, measured::HELP, measurements, &labels, values, tags));
    }
    let family = families.0.iter().find(|family| family.name == name)?;
    let samples: Vec<_> = family.samples.iter().filter(|(values, _)| has_all(family.labels, values, tags)).collect();
    if samples.is_empty() && !tags.is_empty() {
        return None;
    }
    let value: f64 = samples.iter().map(|(_, value)| value).sum();
    let statistic = if family.kind == Kind::Counter { "COUNT" } else { "VALUE" };
    let measurements = json!([{"statistic": statistic, "value": value}]);
    let values = samples.iter().map(|(values, _)| &values[..]);
    Some(document(name, family.help, measurements, family.labels, values, tags))
}

fn has_all(labels: &[&str], values: &[impl AsRef<str>], tags: &[(&str, &str)]) -> bool {
    tags.iter()
        .all(|(tag, wanted)| labels.iter().zip(values).any(|(label, value)| label == tag && value.as_ref() == *wanted))
}

fn document<'a, V: AsRef<str> + 'a>(
    name: &str,
    description: &str,
    measurements: Value,
    labels: &[&str],
    samples: impl Iterator<Item = &'a [V]>,
    tags: &[(&str, &str)],
) -> Value {
    let mut available = BTreeMap::<&str, BTreeSet<&str>>::new();
    for values in samples {
        for (label, value) in labels.iter().zip(values).filter(|(label, _)| !tags.iter().any(|(tag, _)| tag == *label))
        {
            available.entry(label).or_default().insert(value.as_ref());
        }
    }
    let available: Vec<_> = available.into_iter().map(|(tag, values)| json!({"tag": tag, "values": values})).collect();
    let unit = ["seconds", "bytes"].into_iter().find(|unit| name.trim_end_matches("_total").ends_with(unit));
    let mut document =
        json!({"name": name, "description": description, "measurements": measurements, "availableTags": available});
    if let Some(unit) = unit {
        document["baseUnit"] = unit.into();
    }
    document
}
