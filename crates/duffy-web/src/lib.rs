//! What both HTTP APIs are built on.
//!
//! It serves a router within limits on connections, time and memory, and has the parts of an API that do not depend on its
//! endpoints.

mod activity;
mod bind;
mod connection;
mod connection_limit;
pub mod docs;
mod forwarded;
pub mod grant;
mod limits;
mod lingering_close;
mod lists;
mod mutex;
mod reply_body;
mod request_body;
mod request_info;
mod server;
mod shared_bytes;
mod slash;
mod stream_executor;
mod unsent_replies;

pub use bind::bind;
pub use limits::Limits;
pub use lists::{ListError, Lists};
pub use request_info::{RequestInfo, identify};
pub use server::serve;
pub use shared_bytes::SharedBytes;
pub use slash::redirect_slashes;
