/// Part of the registry that a client fetches. Set by
/// [`EurekaBuilder::interest`](crate::EurekaBuilder::interest).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interest {
    /// The whole registry, as Java clients do: once in full, then by deltas.
    #[default]
    All,
    /// The names that are in use only.
    ///
    /// A name is in use once it is called, discovered, preloaded or asked for. It is fetched at
    /// once, and then at each interval: with `If-None-Match` if the server sends an `ETag`,
    /// otherwise by deltas where the server offers them. A name that was not used for 15 minutes is
    /// dropped until its next use.
    ///
    /// If the whole registry is cheaper to fetch, by bytes and requests, the client fetches it
    /// instead, and keeps only the names in use. This is logged once.
    Used,
    /// The instances with this VIP address only, as Java clients do with
    /// `eureka.client.registry-refresh-single-vip-address`. Other names have no instances.
    ///
    /// Servers compare the address with case. The list is fetched completely at each interval.
    Vip(String),
}
