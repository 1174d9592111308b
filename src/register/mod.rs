//! The provider's side: an instance is in the registry exactly as long as it serves.
//!
//! ```text
//!  Registrar ── serve, register, deregister ──▶ Agent (agent.rs)       one task that does every write, one after the other:
//!      │                                           │                    so nothing of ours follows the DELETE
//!      │ phase                                     └─ register, heartbeat, cancel ─▶ Transport
//!      ▼
//!  Lifecycle ◀── requests in flight, last request ── Registration (layer.rs)   wraps the server's service
//! ```
//!
//! [`Registrar::serve`] runs the whole life in its order (`serve.rs`, with the drain in
//! `drain.rs`): poll the server; register; signal; register DOWN; serve on until callers know; stop
//! accepting; finish; DELETE. From the signal on, all steps share one budget.

mod address;
mod agent;
mod drain;
mod layer;
mod lifecycle;
mod paths;
mod registrar;
mod serve;
mod shutdown;
mod state;

pub use layer::{InFlight, Registration, RegistrationLayer, ResponseFuture};
pub use registrar::Registrar;
pub use serve::ServerOutput;
pub use shutdown::Shutdown;
pub use state::RegistrarState;
