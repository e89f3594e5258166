//! The rules: what happens to tenants, nodes and sessions, and in which order.
//!
//! Each function is a whole step of the trade. State changes, and what follows from them,
//! share one transaction; nothing but SQL happens inside one.

pub mod check;
#[cfg(feature = "app")]
mod contextualize;
#[cfg(feature = "tasks")]
pub mod deprovision;
pub mod drain;
#[cfg(any(feature = "app", feature = "tasks"))]
mod ending;
#[cfg(feature = "tasks")]
pub mod expire;
#[cfg(feature = "tasks")]
pub mod fill;
pub mod history;
#[cfg(feature = "app")]
pub mod idempotency;
#[cfg(any(feature = "app", feature = "tasks"))]
pub mod lease;
pub mod nodes;
pub mod operator;
#[cfg(feature = "tasks")]
pub mod pools;
#[cfg(feature = "tasks")]
pub mod provision;
pub mod prune;
#[cfg(feature = "tasks")]
pub mod reclaim;
#[cfg(any(feature = "app", feature = "tasks"))]
pub mod repair;
#[cfg(feature = "app")]
mod reserve;
pub mod rules;
#[cfg(feature = "app")]
mod session_error;
#[cfg(feature = "app")]
pub mod sessions;
pub mod standing;
pub mod tenants;
pub mod views;
#[cfg(feature = "tasks")]
pub mod work;
