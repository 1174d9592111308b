//! Registration of an axum server in one call.
//!
//! ```no_run
//! use tower_eureka::{Eureka, Instance};
//!
//! # async fn example(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
//! let eureka = Eureka::builder().service_url("http://localhost:8761/eureka/").build()?;
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
//! tower_eureka::axum::serve_registered(&eureka, Instance::builder("orders"), listener, app).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`serve`] does the same with a [`Registrar`] that has settings of its own, such as health checks
//! or other time limits. Both are short forms of [`Registrar::serve`].

use std::io;
use std::net::SocketAddr;

use ::axum::Router;
use tokio::net::TcpListener;

use crate::error::{Error, Kind};
use crate::eureka::Eureka;
use crate::eureka::bound::instance_at;
use crate::model::InstanceBuilder;
use crate::register::Registrar;
use crate::signal::shutdown_signal;

/// Runs an axum application, registered as this instance, until SIGTERM or Ctrl-C.
///
/// The port of the instance is that of the listener, unless the instance has one. The application
/// gets the
/// [`RegistrationLayer`](crate::register::RegistrationLayer) as its outermost layer, with the
/// health and info pages. The steps are those of [`Registrar::serve`].
///
/// # Errors
/// If the instance is invalid, or the listener has no address.
///
/// # Panics
/// Outside a tokio runtime with time and IO enabled.
///
/// # Cancel safety
/// If the future is dropped, the server is dropped and the registration is deleted in the
/// background.
pub async fn serve_registered(
    eureka: &Eureka,
    instance: InstanceBuilder,
    listener: TcpListener,
    app: Router,
) -> Result<(), Error> {
    let registrar = eureka.registrar(instance_at(instance, &listener)?);
    let served = serve(registrar, shutdown_signal(), listener, app).await;
    served.map_err(|error| Error::new(Kind::Closed, "cannot serve").cause(error.to_string()))
}

/// Runs an axum application, registered by this registrar, until `signal` completes.
///
/// The application gets the registrar's layer as its outermost one. Handlers can extract
/// [`ConnectInfo<SocketAddr>`](::axum::extract::ConnectInfo). For another layer or listener use
/// [`Registrar::serve`].
///
/// # Errors
/// If the server fails. axum's server repeats a failed accept, so it ends at the signal only.
///
/// # Panics
/// Outside a tokio runtime with time and IO enabled.
///
/// # Cancel safety
/// If the future is dropped, the server is dropped and the registration is deleted in the
/// background.
pub async fn serve(
    registrar: Registrar,
    signal: impl Future<Output = ()>,
    listener: TcpListener,
    app: Router,
) -> io::Result<()> {
    let app = app.layer(registrar.layer()).into_make_service_with_connect_info::<SocketAddr>();
    registrar.serve(signal, |stop| ::axum::serve(listener, app).with_graceful_shutdown(stop)).await
}
