//! Limits the number of connections. A new one closes the one that is idle for the longest time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::activity::Activity;

/// The open connections, and how many there may be.
#[derive(Debug)]
pub struct ConnectionLimit {
    max: usize,
    open: Mutex<OpenConnections>,
    /// Notified when a connection ends or becomes idle.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    by_number: HashMap<u64, Arc<Activity>>,
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    number: u64,
    /// What happens on the connection.
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

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit. At the limit it closes the connection that is idle for the longest time; it waits while none is idle.
    pub async fn acquire(this: &Arc<Self>) -> ConnectionPermit {
        loop {
            if let Some(permit) = Self::try_acquire(this) {
                return permit;
            }
            this.close_idle();
            // A notification since `try_acquire` is stored, so this does not miss it.
            this.changed.notified().await;
        }
    }

    fn try_acquire(this: &Arc<Self>) -> Option<ConnectionPermit> {
        let mut open = this.open();
        if open.by_number.len() >= this.max {
            return None;
        }
        let number = open.next;
        open.next += 1;
        let activity = Arc::new(Activity::new(Arc::clone(&this.changed)));
        open.by_number.insert(number, Arc::clone(&activity));
        Some(ConnectionPermit {
            limit: Arc::clone(this),
            number,
            activity,
        })
    }

    fn close_idle(&self) {
        let open = self.open();
        let connections = || open.by_number.values();
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
        self.limit.open().by_number.remove(&self.number);
        self.limit.changed.notify_one();
    }
}
