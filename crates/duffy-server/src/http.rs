//! The web API. Only this module knows HTTP.
//!
//! `router` has every route, `validate` turns bodies into requests, `error` turns errors into
//! replies. Handlers are thin: they read a request, check its credentials, call `lifecycle` and
//! reply.

mod auth;
mod cross_site;
mod docs;
pub mod error;
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
