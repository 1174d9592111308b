//! Registration of a provider: an instance is registered as long as its server serves.
//!
//! ```text
//!  Registrar ── serve, register, deregister ──▶ Agent (agent.rs)     one task that sends all writes
//!      │                                           │                  in order, the DELETE last
//!      │ state, events                             └─ register, heartbeat, cancel ─▶ Transport
//!      ▼
//!  Lifecycle ◀── requests in flight, last call ── Registration (layer.rs)   wraps the server
//! ```
//!
//! [`Registrar::serve`] (`serve.rs`) runs all steps: poll the server, register, wait for the
//! signal, register DOWN, drain (`drain.rs`), stop accepting, finish the requests in flight,
//! DELETE. From the signal on, all steps share one budget.
//!
//! The [`Registrar`] starts and ends the agent (`task.rs`). A new agent starts once its predecessor
//! has sent the DELETE.
//!
//! The status of the instance follows from the readiness future, the health checks (`monitor.rs`,
//! `vitals.rs`) and the calls of the program. The agent holds the desired record, and registers
//! changes of it at the rate of `limiter.rs`.

mod address;
mod agent;
mod changes;
mod drain;
mod events;
mod health;
mod layer;
mod lifecycle;
mod limiter;
mod listener;
mod monitor;
mod names;
mod options;
mod output;
mod pages;
mod paths;
mod registrar;
mod registrars;
mod serve;
mod shutdown;
mod state;
mod stopping;
mod task;
mod vitals;

pub use drain::ShutdownPreset;
pub use events::{RegistrarEvent, RegistrarEvents};
pub use health::{ComponentHealth, Health, HealthReport, HealthStatus, IntoHealth, RegistryHealth};
pub use layer::{Registration, RegistrationLayer, ResponseFuture};
pub use output::ServerOutput;
pub use pages::RegistrationBody;
pub use registrar::Registrar;
pub(crate) use registrars::Registrars;
pub use shutdown::Shutdown;
pub use state::RegistrarState;
