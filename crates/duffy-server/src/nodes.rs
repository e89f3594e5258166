//! Nodes: how they are made and taken down, and how they are reached.
pub mod ansible;
pub mod mechanism;
pub mod mechanisms;
pub mod simulated;
pub mod ssh;
