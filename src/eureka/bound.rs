use tokio::net::TcpListener;

use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceBuilder};

/// Builds the instance that serves at this listener.
pub(crate) fn instance_at(instance: InstanceBuilder, listener: &TcpListener) -> Result<Instance, Error> {
    let error = || Error::new(Kind::Config, "cannot register the server");
    let instance = instance.listener(listener).map_err(|cause| error().cause(cause.to_string()))?;
    instance.build().map_err(|cause| error().cause(cause.to_string()))
}
