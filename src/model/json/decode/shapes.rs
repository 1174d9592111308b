//! Readers of values that senders write in different shapes: lists and objects.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::lists::log_skipped;

/// List of objects, or a single object without a list around it. Values that are not objects are
/// skipped, in the list and in place of it.
pub(super) struct OneOrMany<T> {
    items: Vec<T>,
    /// Number of values that are not objects.
    others: usize,
}

impl<T> OneOrMany<T> {
    fn none(others: usize) -> Self {
        Self { items: Vec::new(), others }
    }

    /// Returns the objects, and logs each other value as a skipped `record`.
    pub(super) fn log_skipped(self, record: &'static str) -> Vec<T> {
        for _ in 0..self.others {
            log_skipped(record, "it is not an object");
        }
        self.items
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or one object")
            }
            fn visit_unit<E: Error>(self) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany::none(0))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMany { items: vec![one], others: 0 })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany<T>, A::Error> {
                let mut many = OneOrMany::none(0);
                while let Some(OptionalObject(item)) = seq.next_element()? {
                    match item {
                        Some(item) => many.items.push(item),
                        None => many.others += 1,
                    }
                }
                Ok(many)
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany::none(1))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany::none(1))
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany::none(1))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany::none(1))
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany::none(1))
            }
        }
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

/// Object, or `None` in place of any other value.
pub(super) struct OptionalObject<T>(pub(super) Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OptionalObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OptionalObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OptionalObjectVisitor<T> {
            type Value = OptionalObject<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OptionalObject<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| OptionalObject(Some(value)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OptionalObject<T>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(OptionalObject(None))
            }
            fn visit_unit<E: Error>(self) -> Result<OptionalObject<T>, E> {
                Ok(OptionalObject(None))
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<OptionalObject<T>, E> {
                Ok(OptionalObject(None))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<OptionalObject<T>, E> {
                Ok(OptionalObject(None))
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<OptionalObject<T>, E> {
                Ok(OptionalObject(None))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<OptionalObject<T>, E> {
                Ok(OptionalObject(None))
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<OptionalObject<T>, E> {
                Ok(OptionalObject(None))
            }
        }
        deserializer.deserialize_any(OptionalObjectVisitor(PhantomData))
    }
}
