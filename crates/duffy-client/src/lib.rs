//! HTTP client of Duffy's API, a method per endpoint.
//!
//! Replies are handed on as the server sent them: [`Reply::json`] keeps the order of members and
//! what this version knows nothing of; [`Reply::parse`] reads them into `duffy_api`'s types.
//! Calls block; one [`Client`] (and its clones) keeps connections open between them.

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
