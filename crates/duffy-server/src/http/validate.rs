//! From the bytes of a request to its typed value, or to every error in it.
//!
//! Errors have the form, the kinds and the paths that clients of the original know (those of
//! `pydantic` v2 under `FastAPI`). `json` reads a body into a tree, `requests` says which members
//! each request has, `fields` reads members and items, `scalars` and `datetime` read single
//! values. `errors` lists what can be wrong with a value. An error collects its path on the way
//! out, step by step.

mod body;
mod datetime;
mod errors;
mod fields;
mod json;
mod requests;
mod scalars;

#[cfg(test)]
mod tests;

pub use body::{Form, read_body};
pub use errors::{Errors, Read};
pub use json::Json;
pub use requests::{TenantChange, path_id, query_number};
