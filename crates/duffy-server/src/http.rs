//! The web API: all that knows HTTP.
//!
//! `router` has every route, `validate` turns bodies into requests, `error` turns errors into
//! replies. Handlers are thin: they read, ask who is asking, call the lifecycle and answer.

mod auth;
mod cross_site;
mod docs;
pub mod error;
mod grant;
mod input;
mod lists;
mod nodes;
mod openapi;
mod pools;
mod request;
pub mod router;
mod sessions;
mod tenants;
#[cfg(test)]
mod tests;
pub mod validate;

pub use duffy_web::{Limits, bind, serve};
