//! The rules: what happens to tenants, nodes and sessions, and in which order.
//!
//! Each function is a whole step. State changes, and what follows from them, share one transaction; nothing but SQL happens
//! inside one.

pub mod check;
pub mod history;
pub mod nodes;
pub mod operators;
pub mod pools;
pub mod probes;
pub mod request;
pub mod rules;
pub mod sessions;
pub mod tenants;
pub mod views;
pub mod work;
