//! From the bytes of a request to its typed value, or to every error in it.
//!
//! Errors have the shape, the kinds and the places that clients of the original know (those of
//! `pydantic` v2 under `FastAPI`). `json` reads a body into a tree, `scalars` turn one value into
//! one Rust value, `fields` walk the tree and collect what did not fit, and `requests` say which
//! members each request has.

mod body;
mod datetime;
mod fields;
mod json;
mod problem;
mod requests;
mod scalars;

#[cfg(test)]
mod tests;

pub use body::{Body, Unreadable, read_body};
pub use fields::{Errors, Read, Reported, path_id, query_number};
pub use json::Json;
pub use requests::{
    Form, TenantChange, node_create, session_change, session_create, tenant_change, tenant_create,
};
