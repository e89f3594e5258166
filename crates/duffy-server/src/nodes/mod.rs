//! Nodes: how they are made and taken down, and how they are reached.

#[cfg(feature = "tasks")]
pub mod ansible;
#[cfg(feature = "tasks")]
pub mod mechanism;
#[cfg(feature = "tasks")]
pub mod simulated;
pub mod ssh;
