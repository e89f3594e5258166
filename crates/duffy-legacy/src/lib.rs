//! The old Duffy API, as a proxy to the current one.
//!
//! Each request becomes at most one request to the web API, and its answer becomes an answer in the old form. The proxy keeps
//! nothing between requests, so any number of processes can run it. It does not use the database.

mod docs;
mod endpoints;
mod grant;
mod query;
mod reply;
mod request;
mod router;
mod server;
mod upstream;

use std::sync::Arc;

use duffy_config::Metaclient;
use duffy_web::Lists;
use serde_json::Value;

pub use duffy_web::{Limits, bind};
pub use server::serve;
pub use upstream::Times;

use upstream::{READS, Upstream};

/// The proxy: its settings, and its calls to the web API.
#[derive(Debug)]
pub struct Legacy {
    settings: Metaclient,
    upstream: Upstream,
    /// Inventories by the index of the key in `usermap`. `None` is the public one.
    lists: Lists<Option<usize>>,
}

/// Why the proxy's settings are invalid.
#[derive(Debug, thiserror::Error)]
#[error("the web API cannot be called: {0}; set `dest` in `metaclient`")]
pub struct SettingsError(#[source] duffy_client::ClientError);

impl Legacy {
    /// Returns a proxy to the web API at `dest`. Connects to nothing yet.
    pub fn new(settings: Metaclient, dest: &str, times: Times) -> Result<Arc<Self>, SettingsError> {
        let upstream = Upstream::new(dest, times).map_err(SettingsError)?;
        Ok(Arc::new(Self {
            settings,
            upstream,
            lists: Lists::new(READS, times.queue + times.read),
        }))
    }

    /// Returns a node's host name in the form for clients. If the template fails, that is the real host name, because a client
    /// with a session needs to reach its nodes.
    fn hostname(&self, node: &Value) -> Value {
        let real = node.get("hostname").and_then(Value::as_str);
        let shown = self.settings.mangled(real).unwrap_or_else(|error| {
            tracing::error!(%error, "mangle_hostname fails, clients see the real host name");
            real.map(ToOwned::to_owned)
        });
        shown.map_or(Value::Null, Value::from)
    }
}
