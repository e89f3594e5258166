//! The old Duffy API, as a proxy to the current one.
//!
//! Each request is turned into at most one request to the web API, and the answer back into the
//! old form. Nothing is kept between requests, so any number of these can run. The database is
//! not known here.

mod docs;
mod endpoints;
mod grant;
mod openapi;
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
use tokio_util::task::TaskTracker;

pub use duffy_web::{Limits, bind};
pub use server::serve;
pub use upstream::Times;

use upstream::Upstream;

/// The proxy: its settings, and the way to the web API.
#[derive(Debug)]
pub struct Legacy {
    settings: Metaclient,
    upstream: Upstream,
    /// Inventories by the number of the key in `usermap`; `None` is what everybody sees.
    lists: Lists<Option<usize>>,
}

/// Most inventories that are made at once. Making a large one takes several times its memory.
const LISTS: usize = 4;

/// Why there can be no proxy with these settings.
#[derive(Debug, thiserror::Error)]
#[error("the web API cannot be asked: {0}; set `dest` in `metaclient`")]
pub struct SettingsError(#[source] duffy_client::ClientError);

impl Legacy {
    /// A proxy to the web API at `dest`; connects to nothing yet.
    pub fn new(settings: Metaclient, dest: &str, times: Times) -> Result<Arc<Self>, SettingsError> {
        let upstream = Upstream::new(dest, times).map_err(SettingsError)?;
        Ok(Arc::new(Self {
            settings,
            upstream,
            lists: Lists::new(LISTS, times.queue + times.read),
        }))
    }

    /// What runs for clients, also for those that have gone.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        self.upstream.tasks()
    }

    /// A node's host name as clients get to see it. When the template fails that is the real one:
    /// a client that has a session needs to reach its nodes.
    fn hostname(&self, node: &Value) -> Value {
        let real = node.get("hostname").and_then(Value::as_str);
        let shown = self.settings.mangled(real).unwrap_or_else(|error| {
            tracing::error!(%error, "mangle_hostname fails, clients see the real host name");
            real.map(ToOwned::to_owned)
        });
        shown.map_or(Value::Null, Value::from)
    }
}
