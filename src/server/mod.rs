//! Server.
/// Placeholder.
#[derive(Debug)]
pub struct EurekaServer;
