//! Values that stand in more than one shape: a list or its only element, an object or something else.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::skipped;

/// A list of objects, or its only object without a list around it. Everything else counts as no object, in the list and instead
/// of it.
pub(super) struct Many<T> {
    items: Vec<T>,
    /// Elements that were no objects.
    others: usize,
}

impl<T> Many<T> {
    fn none(others: usize) -> Self {
        Self { items: Vec::new(), others }
    }

    /// The objects. Elements that were none are logged as skipped.
    pub(super) fn logged(self, what: &'static str) -> Vec<T> {
        for _ in 0..self.others {
            skipped(what, "it is no object");
        }
        self.items
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ManyVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ManyVisitor<T> {
            type Value = Many<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or one object")
            }
            fn visit_unit<E: Error>(self) -> Result<Many<T>, E> {
                Ok(Many::none(0))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Many<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| Many { items: vec![one], others: 0 })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Many<T>, A::Error> {
                let mut many = Many::none(0);
                while let Some(Maybe(item)) = seq.next_element()? {
                    match item {
                        Some(item) => many.items.push(item),
                        None => many.others += 1,
                    }
                }
                Ok(many)
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Many<T>, E> {
                Ok(Many::none(1))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Many<T>, E> {
                Ok(Many::none(1))
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Many<T>, E> {
                Ok(Many::none(1))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Many<T>, E> {
                Ok(Many::none(1))
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<Many<T>, E> {
                Ok(Many::none(1))
            }
        }
        deserializer.deserialize_any(ManyVisitor(PhantomData))
    }
}

/// An object, or nothing where something else stands.
pub(super) struct Maybe<T>(pub(super) Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MaybeVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for MaybeVisitor<T> {
            type Value = Maybe<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Maybe<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| Maybe(Some(value)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Maybe<T>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Maybe(None))
            }
            fn visit_unit<E: Error>(self) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }
        }
        deserializer.deserialize_any(MaybeVisitor(PhantomData))
    }
}
