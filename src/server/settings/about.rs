/// Settings of the endpoints for operators.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Name of the environment.
    pub(crate) environment: String,
    /// Name of the data center.
    pub(crate) data_center: String,
    /// Path of the page for operators, without a slash at the end. `None` without a page.
    #[cfg_attr(not(feature = "page"), allow(dead_code, reason = "there is no page"))]
    pub(crate) page: Option<String>,
    /// Number of available peers from which on the node is healthy. `None` if that is not decided.
    pub(crate) min_available_peers: Option<usize>,
    /// Measures the latency of requests, and shows the metrics.
    #[cfg(feature = "prometheus")]
    pub(crate) metrics: bool,
    /// Adds the number of instances by application to the metrics.
    #[cfg(feature = "prometheus")]
    pub(crate) metrics_by_application: bool,
}

impl Default for About {
    fn default() -> Self {
        Self {
            environment: "test".to_owned(),
            data_center: "default".to_owned(),
            page: Some(String::new()),
            min_available_peers: None,
            #[cfg(feature = "prometheus")]
            metrics: true,
            #[cfg(feature = "prometheus")]
            metrics_by_application: false,
        }
    }
}
