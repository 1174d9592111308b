/// Type of a key store or trust store, as Java names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreType {
    Pkcs12,
    /// Java's own format. Java accepts a PKCS#12 file under this type as well.
    Jks,
    /// Certificates and key as text.
    Pem,
}

impl StoreType {
    /// Parses the name, whatever its case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match &*text.trim().to_ascii_uppercase() {
            "PKCS12" | "P12" | "PFX" => Some(Self::Pkcs12),
            "JKS" | "JCEKS" => Some(Self::Jks),
            "PEM" => Some(Self::Pem),
            _ => None,
        }
    }
}
