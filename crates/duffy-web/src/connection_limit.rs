//! Limits the number of connections. A new one closes the one that is idle for the longest time.

use std::sync::{Arc, Mutex};

use slab::Slab;
use tokio::sync::Notify;

use crate::activity::Activity;
use crate::mutex::lock;

/// The open connections, and how many are allowed.
#[derive(Debug)]
pub struct ConnectionLimit {
    max: usize,
    open: Mutex<Slab<Arc<Activity>>>,
    /// Notified when a connection ends or becomes idle.
    changed: Arc<Notify>,
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    number: usize,
    /// The activity on the connection.
    pub activity: Arc<Activity>,
}

impl ConnectionLimit {
    /// Allows `max` connections.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            open: Mutex::default(),
            changed: Arc::new(Notify::new()),
        }
    }

    /// Waits for a permit. At the limit it closes the connection that is idle for the longest time; it waits while none is idle.
    pub async fn acquire(self: &Arc<Self>) -> ConnectionPermit {
        loop {
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            self.close_idle();
            // A notification since `try_acquire` is stored, so this does not miss it.
            self.changed.notified().await;
        }
    }

    fn try_acquire(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let mut open = lock(&self.open);
        (open.len() < self.max).then(|| {
            let activity = Arc::new(Activity::new(Arc::clone(&self.changed)));
            ConnectionPermit {
                limit: Arc::clone(self),
                number: open.insert(Arc::clone(&activity)),
                activity,
            }
        })
    }

    fn close_idle(&self) {
        let open = lock(&self.open);
        let connections = || open.iter().map(|(_, connection)| connection);
        if connections().any(|connection| connection.is_closing()) {
            return;
        }
        let idle =
            connections().filter_map(|connection| Some((connection.idle_since()?, connection)));
        if let Some((_, connection)) = idle.min_by_key(|(since, _)| *since) {
            tracing::debug!("at the limit of connections, the one idle for longest is closed");
            connection.ask_to_close();
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        lock(&self.limit.open).remove(self.number);
        self.limit.changed.notify_one();
    }
}
