use std::array;

/// How a body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum Encoding {
    Identity,
    Gzip,
}

/// In which words a body says what it says. The compact forms leave out metadata and leases. `protocol` 3.3, 4, 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum Form {
    Json,
    CompactJson,
    #[cfg(feature = "xml")]
    Xml,
    #[cfg(feature = "xml")]
    CompactXml,
}

/// A form and an encoding: what a client gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) struct Variant {
    pub(in crate::server) form: Form,
    pub(in crate::server) encoding: Encoding,
}

impl Form {
    #[cfg(not(feature = "xml"))]
    pub(super) const ALL: [Self; 2] = [Self::Json, Self::CompactJson];
    #[cfg(feature = "xml")]
    pub(super) const ALL: [Self; 4] = [Self::Json, Self::CompactJson, Self::Xml, Self::CompactXml];
}

/// Something for each form.
#[derive(Debug)]
pub(super) struct PerForm<T>([T; Form::ALL.len()]);

impl<T> PerForm<T> {
    pub(super) fn of(&self, form: Form) -> &T {
        &self.0[form as usize]
    }
}

impl<T: Default> Default for PerForm<T> {
    fn default() -> Self {
        Self(array::from_fn(|_| T::default()))
    }
}

/// Something for each variant.
#[derive(Debug, Default)]
pub(super) struct PerVariant<T> {
    identity: PerForm<T>,
    gzip: PerForm<T>,
}

impl<T> PerVariant<T> {
    pub(super) fn of(&self, Variant { form, encoding }: Variant) -> &T {
        match encoding {
            Encoding::Identity => self.identity.of(form),
            Encoding::Gzip => self.gzip.of(form),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.identity.0.iter().chain(&self.gzip.0)
    }
}
