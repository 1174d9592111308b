use std::array;

/// Content coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum Encoding {
    Identity,
    Gzip,
}

/// Format of a body. The compact forms omit metadata and leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum Form {
    Json,
    CompactJson,
    #[cfg(feature = "xml")]
    Xml,
    #[cfg(feature = "xml")]
    CompactXml,
}

/// Form and encoding of a body, as negotiated with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) struct Variant {
    pub(in crate::server) form: Form,
    pub(in crate::server) encoding: Encoding,
}

impl Form {
    #[cfg(not(feature = "xml"))]
    pub(in crate::server) const ALL: [Self; 2] = [Self::Json, Self::CompactJson];
    #[cfg(feature = "xml")]
    pub(in crate::server) const ALL: [Self; 4] = [Self::Json, Self::CompactJson, Self::Xml, Self::CompactXml];
}

/// One value for each form.
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

/// One value for each variant.
#[derive(Debug, Default)]
pub(in crate::server) struct PerVariant<T> {
    identity: PerForm<T>,
    gzip: PerForm<T>,
}

impl<T> PerVariant<T> {
    pub(in crate::server) fn of(&self, Variant { form, encoding }: Variant) -> &T {
        match encoding {
            Encoding::Identity => self.identity.of(form),
            Encoding::Gzip => self.gzip.of(form),
        }
    }

    pub(in crate::server) fn iter(&self) -> impl Iterator<Item = &T> {
        self.identity.0.iter().chain(&self.gzip.0)
    }
}
