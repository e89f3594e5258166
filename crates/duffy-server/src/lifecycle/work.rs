//! What workers do with nodes that they have claimed.

pub mod backoff;
pub mod deprovision;
pub mod failure;
pub mod job;
pub mod lease;
pub mod provision;
