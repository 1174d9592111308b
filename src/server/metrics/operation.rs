/// Operation of a request, as the label of the metrics names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum OperationLabel {
    Heartbeat,
    List,
    Delta,
    Application,
    Instance,
    Vip,
    Register,
    Cancel,
    SetOverride,
    DeleteOverride,
    Metadata,
    Replication,
    Status,
    /// Everything else: health, metrics, the page, and paths without a resource.
    Other,
}

#[cfg(feature = "prometheus")]
impl OperationLabel {
    pub(super) const NAMES: [&str; 14] = [
        "heartbeat",
        "list",
        "delta",
        "application",
        "instance",
        "vip",
        "register",
        "cancel",
        "set_override",
        "delete_override",
        "metadata",
        "replication",
        "status",
        "other",
    ];
}
