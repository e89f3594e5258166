//! Connections that stay open until a command needs them.
//!
//! A connection is used once: the node then belongs to a tenant. Other processes close theirs when they notice.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::destination::Target;
use super::native::Connection;
use super::profile::Profile;

/// The connections of this process that wait for a command.
#[derive(Debug, Default)]
pub(super) struct HeldConnections {
    capacity: AtomicUsize,
    open: Mutex<HashMap<Place, Held>>,
}

/// Where an SSH server is: host and port.
type Place = (String, Option<u16>);

#[derive(Debug)]
struct Held {
    connection: Arc<Connection>,
    /// The host keys that were accepted.
    host_keys: Vec<String>,
    /// What ssh_config said at the login.
    profile: Arc<Profile>,
    /// The fence of the node at the login. It changes when a session takes the node.
    fence: Option<i64>,
    /// Whether the node was not wanted in the last call of `retain`.
    unwanted: bool,
}

impl HeldConnections {
    /// Sets the largest number of connections. It is 0 at first.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
        if capacity == 0 {
            for (_, held) in self.lock().drain() {
                held.connection.close();
            }
        }
    }

    /// Keeps a connection, if need be in place of one that nobody wants. Closes it if there are too many already.
    pub fn keep(&self, target: &Target, profile: Arc<Profile>, connection: Arc<Connection>) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let mut open = self.lock();
        let full = open.len() >= capacity;
        let unwanted = open
            .extract_if(|_, held| full && held.unwanted)
            .map(|(_, held)| held)
            .collect::<Vec<_>>();
        let full = open.len() >= capacity;
        let held = Held {
            connection,
            host_keys: target.host_keys.clone(),
            profile,
            fence: target.fence,
            unwanted: false,
        };
        let former = match open.entry(place(target)) {
            Entry::Occupied(mut former) => Some(former.insert(held)),
            Entry::Vacant(_) if full => Some(held),
            Entry::Vacant(vacant) => {
                vacant.insert(held);
                None
            }
        };
        drop(open);
        for former in former.into_iter().chain(unwanted) {
            former.connection.close();
        }
    }

    /// Takes the connection to a node, if it is open and was made with the same host keys and the same ssh_config.
    pub fn take(&self, target: &Target, profile: &Profile) -> Option<Arc<Connection>> {
        let held = self.lock().remove(&place(target))?;
        let usable = held.host_keys == target.host_keys
            && *held.profile == *profile
            && !held.connection.closed().is_cancelled();
        if !usable {
            held.connection.close();
            return None;
        }
        Some(held.connection)
    }

    /// Whether this connection to a node has not been taken.
    fn holds(&self, target: &Target, connection: &Weak<Connection>) -> bool {
        let open = self.lock();
        let current = open.get(&place(target));
        current.is_some_and(|held| Weak::ptr_eq(&Arc::downgrade(&held.connection), connection))
    }

    /// Closes the connections to other nodes than these. A node that was just lent is not among them either, and the request
    /// needs its connection in a moment, so it takes a second call.
    pub fn retain<'a>(&self, targets: impl Iterator<Item = &'a Target>) {
        let wanted: HashMap<Place, Option<i64>> = targets
            .map(|target| (place(target), target.fence))
            .collect();
        let unwanted = self
            .lock()
            .extract_if(|place, held| {
                let was_unwanted = held.unwanted;
                held.unwanted = wanted.get(place) != Some(&held.fence);
                held.unwanted && was_unwanted
            })
            .collect::<Vec<_>>();
        for (_, held) in unwanted {
            held.connection.close();
        }
    }

    /// Closes the connection to a node.
    pub fn close(&self, target: &Target) {
        if let Some(held) = self.lock().remove(&place(target)) {
            held.connection.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Held>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(target: &Target) -> Place {
    (target.host.clone(), target.port)
}

/// How a held connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEnd {
    /// A command has taken it, or Duffy has closed it.
    Taken,
    /// The node closed it, or did not answer in time.
    Lost,
}

/// A connection that another task may take at any time.
#[derive(Debug)]
pub struct HeldConnection {
    target: Target,
    connections: Arc<HeldConnections>,
    connection: Weak<Connection>,
    closed: CancellationToken,
}

impl HeldConnection {
    /// Returns the connection to a node, if there is one.
    pub(super) fn find(connections: &Arc<HeldConnections>, target: &Target) -> Option<Self> {
        let open = connections.lock();
        let held = open.get(&place(target));
        // With another fence it is from the time before the last session.
        let connection = &held.filter(|held| held.fence == target.fence)?.connection;
        Some(Self {
            target: target.clone(),
            connections: Arc::clone(connections),
            connection: Arc::downgrade(connection),
            closed: connection.closed(),
        })
    }

    /// Waits for `pause` and then for a reply to a keepalive message, `patience` at most. `None` when the node answered.
    pub async fn check_after(&self, pause: Duration, patience: Duration) -> Option<HoldEnd> {
        let mut lost = timeout(pause, self.closed.cancelled()).await.is_ok();
        if !lost && let Some(connection) = self.connection.upgrade() {
            lost = timeout(patience, connection.ping()).await != Ok(true);
        }
        if !self.connections.holds(&self.target, &self.connection) {
            return Some(HoldEnd::Taken);
        }
        lost.then(|| {
            self.connections.close(&self.target);
            HoldEnd::Lost
        })
    }
}
