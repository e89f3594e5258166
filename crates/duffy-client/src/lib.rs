//! HTTP client of Duffy's API, a method per endpoint.
//!
//! [`Reply::json`] returns a reply as the server sent it: with the order of its members, and with members that this version does
//! not know. [`Reply::parse`] reads it into `duffy_api`'s types. Calls block. A [`Client`] and its clones keep connections open
//! between calls.

mod base_url;
mod client;
mod error;
mod proxy;
mod reply;
mod retry;
mod tls;

pub use client::{Client, Settings};
pub use error::{ClientError, Refusal};
pub use reply::Reply;
pub use retry::{new_key, repeat};
