//! Registration of a provider: an instance is registered as long as its server serves.
//!
//! ```text
//!  Registrar ── serve, register, deregister ──▶ Agent (agent.rs)     one task that sends all writes
//!      │                                           │                  in order, the DELETE last
//!      │ state                                     └─ register, heartbeat, cancel ─▶ Transport
//!      ▼
//!  Lifecycle ◀── requests in flight, last call ── Registration (layer.rs)   wraps the server
//! ```
//!
//! [`Registrar::serve`] (`serve.rs`) runs all steps: poll the server, register, wait for the
//! signal, register DOWN, drain (`drain.rs`), stop accepting, finish the requests in flight,
//! DELETE. From the signal on, all steps share one budget.

mod address;
mod agent;
mod drain;
mod layer;
mod lifecycle;
mod listener;
mod names;
mod pages;
mod paths;
mod registrar;
mod serve;
mod shutdown;
mod state;
mod stopping;

pub use layer::{Registration, RegistrationLayer, ResponseFuture};
pub use pages::RegistrationBody;
pub use registrar::Registrar;
pub use serve::ServerOutput;
pub use shutdown::Shutdown;
pub use state::RegistrarState;
