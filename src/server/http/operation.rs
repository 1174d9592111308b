//! Operation of a request by its method and path, for an authorization layer of the user.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request};
use percent_encoding::percent_decode_str;
use tower::{Layer, Service};

use crate::model::app_name;
use crate::server::metrics::OperationLabel;

/// Operation of a request to a registry. [`DescribeLayer`] puts it into the extensions of each
/// request.
///
/// The operation and the names are those that the registry itself reads from the path, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// Kind of the operation.
    pub kind: OperationKind,
    /// Application that the path names, in upper case. A replication batch names none: its items
    /// are in the body.
    pub app: Option<Arc<str>>,
    /// Instance id that the path names.
    pub instance: Option<Box<str>>,
}

/// Kind of an operation of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperationKind {
    /// Reads a list, an instance or the state of the server.
    Read,
    /// Registers an instance of the application. Its id is in the body.
    Register,
    /// Renews a lease.
    Renew,
    /// Cancels a lease.
    Cancel,
    /// Sets a status override.
    SetOverride,
    /// Deletes a status override.
    ClearOverride,
    /// Changes metadata.
    SetMetadata,
    /// Applies a batch of changes of another registry server.
    Replicate,
    /// Any other request. A registry responds to it with 400, 404 or 405.
    Other,
}

impl OperationKind {
    /// Returns true if the operation can change the registry.
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Read | Self::Other)
    }
}

impl Operation {
    /// Returns the operation of a request with this method and path, below the path at which the
    /// registry is mounted.
    ///
    /// ```
    /// use http::Method;
    /// use tower_eureka::server::{Operation, OperationKind};
    ///
    /// let operation = Operation::of(&Method::DELETE, "/apps/orders/h%3Aorders%3A1", "");
    /// assert_eq!(operation.kind, OperationKind::Cancel);
    /// assert_eq!(operation.app.as_deref(), Some("ORDERS"));
    /// assert_eq!(operation.instance.as_deref(), Some("h:orders:1"));
    /// ```
    pub fn of(method: &Method, path: &str, mount: &str) -> Self {
        let other = Self { kind: OperationKind::Other, app: None, instance: None };
        let Some(Found { kind, app, instance, .. }) = Found::of(method, path, mount) else { return other };
        let decode = |name: &str| percent_decode_str(name).decode_utf8().map(|name| name.into_owned()).ok();
        // The router refuses a name that is not UTF-8.
        let (app, instance) = match (app.map(decode), instance.map(decode)) {
            (Some(None), _) | (_, Some(None)) => return other,
            (app, instance) => (app.flatten(), instance.flatten()),
        };
        Self { kind, app: app.as_deref().map(app_name), instance: instance.map(Into::into) }
    }
}

/// Returns the operation of a request as the metrics name it.
pub(super) fn label(method: &Method, path: &str, mount: &str) -> OperationLabel {
    Found::of(method, path, mount).map_or(OperationLabel::Other, |found| found.label())
}

/// Operation of a path, with the names as they are there.
struct Found<'a> {
    kind: OperationKind,
    /// Label of the operation if it reads.
    read: OperationLabel,
    app: Option<&'a str>,
    instance: Option<&'a str>,
}

impl<'a> Found<'a> {
    /// Returns `None` if there is no such resource.
    fn of(method: &Method, path: &'a str, mount: &str) -> Option<Self> {
        let path = path.strip_prefix(mount)?.strip_prefix('/')?;
        let (segments, count) = segments(path);
        let segments = &segments[..count];
        // The prefixes of the router: none, a version or an empty segment, a version and an empty
        // segment.
        let versioned = segments.get(1..).unwrap_or_default();
        let doubled = match versioned {
            ["", rest @ ..] => rest,
            _ => &[],
        };
        [segments, versioned, doubled].into_iter().find_map(|segments| Self::below(method, segments))
    }

    fn label(&self) -> OperationLabel {
        match self.kind {
            OperationKind::Read => self.read,
            OperationKind::Register => OperationLabel::Register,
            OperationKind::Renew => OperationLabel::Heartbeat,
            OperationKind::Cancel => OperationLabel::Cancel,
            OperationKind::SetOverride => OperationLabel::SetOverride,
            OperationKind::ClearOverride => OperationLabel::DeleteOverride,
            OperationKind::SetMetadata => OperationLabel::Metadata,
            OperationKind::Replicate => OperationLabel::Replication,
            OperationKind::Other => OperationLabel::Other,
        }
    }

    /// Returns the operation of a path without prefix, or `None` if there is no such resource.
    fn below(method: &Method, segments: &[&'a str]) -> Option<Self> {
        use OperationKind::{Cancel, ClearOverride, Other, Read, Register, Renew, Replicate, SetMetadata, SetOverride};
        // Each path may end in a slash.
        let segments = match segments {
            [rest @ .., ""] => rest,
            all => all,
        };
        let is = |wanted: &Method| method == wanted;
        let is_get = is(&Method::GET) || is(&Method::HEAD);
        let read = if is_get { Read } else { Other };
        let (label, kind, app, instance) = match *segments {
            ["apps"] => (OperationLabel::List, read, None, None),
            ["apps", "delta"] => (OperationLabel::Delta, read, None, None),
            ["status"] => (OperationLabel::Status, read, None, None),
            ["serverinfo", "statusoverrides"] => (OperationLabel::Other, read, None, None),
            ["apps", app] => {
                (OperationLabel::Application, if is(&Method::POST) { Register } else { read }, Some(app), None)
            }
            ["apps", app, id] => {
                let kind = match *method {
                    Method::PUT => Renew,
                    Method::DELETE => Cancel,
                    _ => read,
                };
                (OperationLabel::Instance, kind, Some(app), Some(id))
            }
            ["apps", app, id, resource @ ("status" | "metadata")] => {
                let kind = match (resource, method) {
                    ("status", &Method::PUT) => SetOverride,
                    ("status", &Method::DELETE) => ClearOverride,
                    ("metadata", &Method::PUT) => SetMetadata,
                    _ => Other,
                };
                (OperationLabel::Other, kind, Some(app), Some(id))
            }
            ["instances", id] => (OperationLabel::Instance, read, None, Some(id)),
            ["vips" | "svips", _] => (OperationLabel::Vip, read, None, None),
            ["peerreplication", "batch"] => {
                (OperationLabel::Other, if is(&Method::POST) { Replicate } else { Other }, None, None)
            }
            ["peerreplication", "owners"] => (OperationLabel::Other, read, None, None),
            ["asg", _, "status"] => (OperationLabel::Other, Other, None, None),
            _ => return None,
        };
        Some(Self { kind, read: label, app, instance })
    }
}

/// Number of segments of a path that are read. No resource has more, with prefix and final slash.
const MAX_SEGMENTS: usize = 8;

/// Returns the first segments of a path, and their number.
fn segments(path: &str) -> ([&str; MAX_SEGMENTS], usize) {
    let (mut segments, mut count) = ([""; MAX_SEGMENTS], 0);
    for segment in path.split('/').take(MAX_SEGMENTS) {
        segments[count] = segment;
        count += 1;
    }
    (segments, count)
}

/// Layer that puts the [`Operation`] of each request into its extensions, for a layer of the user
/// that decides which requests are allowed.
///
/// It belongs outside of that layer, around a [`RegistryService`](super::RegistryService) or a
/// router.
///
/// ```
/// use axum::body::Body;
/// use axum::response::IntoResponse;
/// use http::{Request, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::{DescribeLayer, Operation};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = EurekaServer::builder().build()?;
/// // Any Tower layer: here a team that may change the application ORDERS alone.
/// let allow = |service: tower_eureka::server::RegistryService| {
///     service_fn(move |request: Request<Body>| {
///         let operation = request.extensions().get::<Operation>();
///         let allowed = operation.is_some_and(|operation| match operation.app.as_deref() {
///             _ if !operation.kind.is_write() => true,
///             app => app == Some("ORDERS"),
///         });
///         let service = service.clone();
///         async move {
///             if allowed { service.oneshot(request).await } else { Ok(StatusCode::FORBIDDEN.into_response()) }
///         }
///     })
/// };
/// let service = ServiceBuilder::new()
///     .layer(DescribeLayer::new("/eureka"))
///     .layer(tower::layer::layer_fn(allow))
///     .service(registry.service("/eureka"));
///
/// let cancel = |app| Request::delete(format!("/eureka/apps/{app}/1")).body(Body::empty());
/// assert_eq!(service.clone().oneshot(cancel("users")?).await?.status(), StatusCode::FORBIDDEN);
/// assert_eq!(service.oneshot(cancel("orders")?).await?.status(), StatusCode::NOT_FOUND);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DescribeLayer {
    mount: Arc<str>,
}

impl DescribeLayer {
    /// Creates a layer around a registry at this path, such as `/eureka`. It is empty inside
    /// `Router::nest`, which removes the path.
    ///
    /// # Panics
    /// Panics if `mount` is neither empty nor begins with a slash.
    pub fn new(mount: &str) -> Self {
        let mount = mount.trim_end_matches('/');
        assert!(mount.is_empty() || mount.starts_with('/'), "the path of a registry begins with a slash: {mount}");
        Self { mount: mount.into() }
    }
}

impl<S> Layer<S> for DescribeLayer {
    type Service = Describe<S>;

    fn layer(&self, inner: S) -> Describe<S> {
        Describe { inner, mount: self.mount.clone() }
    }
}

/// Service of [`DescribeLayer`].
#[derive(Clone, Debug)]
pub struct Describe<S> {
    inner: S,
    mount: Arc<str>,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Describe<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let operation = Operation::of(request.method(), request.uri().path(), &self.mount);
        request.extensions_mut().insert(operation);
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::{MatchedPath, Request};
    use axum::middleware::{Next, from_fn};
    use axum::response::{IntoResponse, Response};
    use http::HeaderValue;
    use tower::ServiceExt;

    use super::*;
    use crate::server::EurekaServer;

    #[test]
    fn operation_has_the_decoded_names_of_its_path() {
        let describe = |method: Method, path: &str| {
            let Operation { kind, app, instance } = Operation::of(&method, path, "/eureka");
            format!("{kind:?} {} {}", app.as_deref().unwrap_or("-"), instance.as_deref().unwrap_or("-"))
        };
        for (method, path, expected) in [
            (Method::GET, "/eureka/apps", "Read - -"),
            (Method::GET, "/eureka/apps/delta/", "Read - -"),
            (Method::POST, "/eureka/apps/orders", "Register ORDERS -"),
            (Method::POST, "/eureka/v2//apps/orders/", "Register ORDERS -"),
            (Method::PUT, "/eureka//apps/or%64ers/a%2Fb", "Renew ORDERS a/b"),
            (Method::DELETE, "/eureka/apps/orders/i", "Cancel ORDERS i"),
            (Method::PUT, "/eureka/apps/orders/i/status", "SetOverride ORDERS i"),
            (Method::DELETE, "/eureka/v2/apps/orders/i/status", "ClearOverride ORDERS i"),
            (Method::PUT, "/eureka/apps/orders/i/metadata", "SetMetadata ORDERS i"),
            (Method::POST, "/eureka/peerreplication/batch/", "Replicate - -"),
            (Method::GET, "/eureka/instances/i", "Read - i"),
            (Method::POST, "/eureka/apps/orders/i", "Other ORDERS i"),
            (Method::POST, "/eureka/apps/%ff", "Other - -"),
            (Method::PUT, "/eureka/apps//i", "Renew  i"),
            (Method::POST, "/eureka", "Other - -"),
            (Method::POST, "/apps/orders", "Other - -"),
        ] {
            assert_eq!(describe(method.clone(), path), expected, "{method} {path}");
        }
    }

    #[test]
    fn label_is_that_of_method_and_path() {
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
            ("HEAD /eureka/apps", List),
            ("GET /eureka/apps/or%64ers/1", Instance),
            ("GET /eureka/v2/v3/apps", Other),
            ("GET /eureka/serverinfo/statusoverrides", Other),
        ] {
            let (method, path) = line.split_once(' ').unwrap();
            assert_eq!(label(&method.parse().unwrap(), path, "/eureka"), expected, "{line}");
        }
    }

    /// Compares the operations of a path with the route that the router chooses. Returns the number
    /// of writes.
    async fn compare(router: &axum::Router, path: &str) -> usize {
        let mut known = 0;
        for method in [Method::GET, Method::PUT, Method::POST] {
            let request = Request::builder().method(&method).uri(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let matched = response.headers().get("x-matched").map_or("", |path| path.to_str().unwrap());
            let operation = Operation::of(&method, path, "");
            let count = |name: &str| usize::from(matched.contains(name));
            let names = usize::from(operation.app.is_some()) + usize::from(operation.instance.is_some());
            assert_eq!(names, count("{app}") + count("{id}"), "{method} {path}: {matched} {operation:?}");
            let ends = |ends: &[&str]| ends.iter().any(|end| matched.trim_end_matches('/').ends_with(end));
            let writes = match method {
                Method::POST => ends(&["{app}", "/batch"]),
                Method::PUT => ends(&["{id}", "{id}/status", "{id}/metadata"]) && matched.contains("/apps/"),
                _ => false,
            };
            assert_eq!(operation.kind.is_write(), writes, "{method} {path}: {matched} {operation:?}");
            known += usize::from(writes);
        }
        known
    }

    /// Otherwise a layer that reads the operation could be circumvented by an unusual path.
    #[tokio::test]
    async fn each_path_has_the_resource_that_the_router_chooses() {
        let tell = async |request: Request, _: Next| -> Response {
            let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
            [("x-matched", HeaderValue::from_str(path).unwrap())].into_response()
        };
        let router = EurekaServer::builder().build().unwrap().router().route_layer(from_fn(tell));
        let words: [(&[&str], usize); 2] = [
            (&["", "apps", "delta", "status", "x"], 5),
            (&["", "apps", "peerreplication", "batch", "metadata", "instances"], 4),
        ];
        let mut known = 0;
        for (words, depth) in words {
            let mut paths = vec![String::new()];
            for _ in 0..depth {
                paths = paths.iter().flat_map(|path| words.iter().map(move |word| format!("{path}/{word}"))).collect();
                for path in &paths {
                    known += compare(&router, path).await;
                }
            }
        }
        assert!(known > 100, "{known}");
    }
}
