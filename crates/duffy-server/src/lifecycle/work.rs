//! Workers' work on claimed nodes.

pub mod backoff;
pub mod deprovision;
pub mod failure;
pub mod job;
pub mod lease;
pub mod provision;
