//! Choice of an instance without a call.

use crate::client::{Chooser, Chosen, RequestHead, ResponseFuture};

use super::Eureka;

impl Eureka {
    /// Chooses an instance of an application for a call by another client or protocol: a WebSocket,
    /// a message queue, or a redirect. The name is looked up as described at
    /// [`Selection::name`](crate::discover::Selection::name).
    ///
    /// The options are those of the settings; see [`call_options`](Self::call_options). The policy
    /// chooses by the request, which may be an [`http::Request`], its parts, or `()`. The choice
    /// waits for an instance as calls do: for the [ready
    /// timeout](super::EurekaBuilder::ready_timeout), or as long as
    /// [`WaitForReady`](crate::client::WaitForReady) and [`Deadline`](crate::client::Deadline) in
    /// the extensions of the request say.
    ///
    /// The caller reports the outcome, so that further choices avoid slow and failing instances.
    /// All choices of this `Eureka` share the measurements. Those of calls are separate, unless
    /// [`HttpClient::choose`](crate::client::HttpClient::choose) chooses. Health checks need
    /// connections, so they do not apply here.
    ///
    /// # Errors
    /// If no application can have the name, or there is no instance in time.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// ```no_run
    /// use tokio::net::TcpStream;
    ///
    /// # async fn example(eureka: &tower_eureka::Eureka) -> Result<(), Box<dyn std::error::Error>> {
    /// let broker = eureka.choose("broker", &()).await?;
    /// match TcpStream::connect(broker.authority().as_str()).await {
    ///     Ok(stream) => {
    ///         broker.success();
    ///         // Keep `broker` as long as the connection, which counts as load of the instance.
    ///         # drop(stream);
    ///     }
    ///     Err(_) => broker.unreachable(),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn choose(&self, name: impl AsRef<str>, request: &impl RequestHead) -> ResponseFuture<Chosen> {
        self.chooser().choose(name.as_ref(), request)
    }

    /// Returns the chooser over the current registry cache, which is made again with its runtime.
    fn chooser(&self) -> Chooser {
        let (registry, ready_timeout) = self.call_registry();
        let mut chooser = self.0.chooser.lock();
        match &*chooser {
            Some(current) if current.is_over(&registry) => current.clone(),
            _ => {
                let made = Chooser::new(registry, self.call_options(), ready_timeout);
                self.0.clients.add(made.as_client());
                chooser.insert(made).clone()
            }
        }
    }
}
