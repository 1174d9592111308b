use http::Method;

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

impl OperationLabel {
    #[cfg(feature = "prometheus")]
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

    /// Returns the operation of a request. `mount` is the path of the registry.
    pub(in crate::server) fn of(method: &Method, path: &str, mount: &str) -> Self {
        let Some(path) = path.strip_prefix(mount) else { return Self::Other };
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let mut next = || segments.next().unwrap_or_default();
        let resource = match next() {
            known @ ("apps" | "vips" | "svips" | "instances" | "peerreplication" | "status" | "serverinfo" | "asg") => {
                known
            }
            // The version in the path of a Netflix client.
            _ => next(),
        };
        let method = method.as_str();
        match (method, resource, [next(), next(), next(), next()]) {
            ("GET", "apps", ["", ..]) => Self::List,
            ("GET", "apps", ["delta", "", ..]) => Self::Delta,
            ("GET", "apps", [_, "", ..]) => Self::Application,
            ("POST", "apps", [_, "", ..]) => Self::Register,
            ("GET", "apps", [_, _, "", _]) | ("GET", "instances", [_, "", ..]) => Self::Instance,
            ("PUT", "apps", [_, _, "", _]) => Self::Heartbeat,
            ("DELETE", "apps", [_, _, "", _]) => Self::Cancel,
            ("PUT", "apps", [_, _, "status", ""]) => Self::SetOverride,
            ("DELETE", "apps", [_, _, "status", ""]) => Self::DeleteOverride,
            ("PUT", "apps", [_, _, "metadata", ""]) => Self::Metadata,
            ("GET", "vips" | "svips", [_, "", ..]) => Self::Vip,
            ("POST", "peerreplication", ["batch", "", ..]) => Self::Replication,
            ("GET", "status", ["", ..]) => Self::Status,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_is_that_of_method_and_path() {
        use OperationLabel::*;
        for (line, expected) in [
            ("GET /eureka/apps", List),
            ("GET /eureka/apps/", List),
            ("GET /eureka/v2/apps", List),
            ("GET /eureka//apps/delta", Delta),
            ("GET /eureka/v2/apps/ORDERS", Application),
            ("POST /eureka/apps/ORDERS", Register),
            ("GET /eureka/apps/ORDERS/1", Instance),
            ("GET /eureka/instances/1", Instance),
            ("PUT /eureka/apps/ORDERS/1", Heartbeat),
            ("PUT /eureka/apps/ORDERS/1/", Heartbeat),
            ("DELETE /eureka/apps/ORDERS/1", Cancel),
            ("PUT /eureka/apps/ORDERS/1/status", SetOverride),
            ("DELETE /eureka/apps/ORDERS/1/status", DeleteOverride),
            ("PUT /eureka/apps/ORDERS/1/metadata", Metadata),
            ("PUT /eureka/apps/ORDERS/1/status/x", Other),
            ("GET /eureka/vips/orders", Vip),
            ("GET /eureka/v2/svips/orders", Vip),
            ("POST /eureka/peerreplication/batch/", Replication),
            ("GET /eureka/v2/status", Status),
            ("GET /eureka/", Other),
            ("GET /actuator/health", Other),
            ("PATCH /eureka/apps", Other),
            ("GET /apps", Other),
        ] {
            let (method, path) = line.split_once(' ').unwrap();
            assert_eq!(OperationLabel::of(&method.parse().unwrap(), path, "/eureka"), expected, "{line}");
        }
    }
}
