//! Operations for those who operate a registry: pages of a server, and overrides that end without a
//! gap.

use bytes::Bytes;
use http::{Method, Response};

use super::operations::Transport;
use super::request::Operation;
use crate::error::Error;
use crate::model::InstanceStatus;

impl Transport {
    /// Fetches a page of a registry server, such as `status`. The path is appended to the service
    /// URL. Returns the response with any status, and its decompressed body, of at most 64 MiB.
    ///
    /// # Errors
    /// When no server responds, or the path is no part of a URL.
    pub async fn page(&self, path: &str) -> Result<Response<Bytes>, Error> {
        let operation = Operation { accepts_all: true, ..Operation::new("fetch page", Method::GET) };
        self.send(operation.path(path.trim_start_matches('/').to_owned()), self.options(), |_, received| async move {
            let mut response = Response::new(received.body);
            *response.status_mut() = received.status;
            *response.headers_mut() = received.headers;
            Ok(response)
        })
        .await
    }

    /// Removes the status that [`set_status`](Self::set_status) set, as
    /// [`remove_status`](Self::remove_status) does, and sets this status until the instance
    /// registers again. The instance is not `UNKNOWN` meanwhile.
    ///
    /// An instance that still reports another status keeps this one until then.
    ///
    /// # Errors
    /// When no server accepts the change. [`Error::is_not_found`] is true if the instance is
    /// unknown.
    pub async fn replace_status(&self, app: &str, id: &str, status: InstanceStatus) -> Result<(), Error> {
        let operation = Operation::instance("remove status of", Method::DELETE, app, id);
        self.write(operation.suffix(&format!("/status?value={status}"))).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use http::Request;
    use tower::service_fn;

    use super::*;
    use crate::config::{ClientConfig, ServiceUrl};
    use crate::sync::Mutex;
    use crate::transport::{HttpStack, RequestBody};

    /// Returns a transport whose servers respond with this status, and their requests.
    fn server(status: u16) -> (Transport, Arc<Mutex<Vec<String>>>) {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let respond = move |request: Request<RequestBody>| {
            seen.lock().push(format!("{} {}", request.method(), request.uri()));
            let mut response = Response::new(RequestBody::new("<p>body".into()));
            *response.status_mut() = status.try_into().unwrap();
            async { Ok::<_, Infallible>(response) }
        };
        let stack = HttpStack::over(service_fn(respond), &ClientConfig::default());
        (Transport::new(ServiceUrl::parse_list("http://a/eureka,http://b/eureka").unwrap(), stack), requests)
    }

    #[tokio::test]
    async fn page_with_any_status_is_returned_by_the_first_server() {
        for status in [200, 302, 404, 503] {
            let (transport, requests) = server(status);
            let page = transport.page("/status").await.unwrap();
            assert_eq!((page.status().as_u16(), &page.body()[..]), (status, &b"<p>body"[..]));
            assert_eq!(*requests.lock(), ["GET http://a/eureka/status"]);
        }
    }

    #[tokio::test]
    async fn replaced_status_is_the_value_of_the_delete() {
        let (transport, requests) = server(404);
        let error = transport.replace_status("orders", "a/b", InstanceStatus::Up).await.unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(*requests.lock(), ["DELETE http://a/eureka/apps/ORDERS/a%2Fb/status?value=UP"]);
    }
}
