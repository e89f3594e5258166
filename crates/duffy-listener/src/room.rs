//! The connections that there are: not too many, and not for those who only take up room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::activity::Activity;

/// Room for so many connections.
#[derive(Debug)]
pub struct Room {
    most: usize,
    guests: Mutex<Guests>,
    /// Says that a connection ended or became idle.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    by_number: HashMap<u64, Arc<Activity>>,
}

/// A connection's place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    number: u64,
    /// What happens on the connection.
    pub activity: Arc<Activity>,
}

impl Room {
    /// Room for so many connections.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            guests: Mutex::default(),
            changed: Arc::new(Notify::new()),
        }
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place. When all are taken, the connection that has been idle for longest is closed;
    /// when none is idle, this waits.
    pub async fn enter(this: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = Self::take(this) {
                return place;
            }
            this.make_room();
            // What changed since the look is remembered, so this comes back.
            this.changed.notified().await;
        }
    }

    fn take(this: &Arc<Self>) -> Option<Place> {
        let mut guests = this.guests();
        if guests.by_number.len() >= this.most {
            return None;
        }
        let number = guests.next;
        guests.next += 1;
        let activity = Arc::new(Activity::new(Arc::clone(&this.changed)));
        guests.by_number.insert(number, Arc::clone(&activity));
        Some(Place {
            room: Arc::clone(this),
            number,
            activity,
        })
    }

    fn make_room(&self) {
        let guests = self.guests();
        if guests.by_number.values().any(|guest| guest.is_closing()) {
            return;
        }
        let idle = guests
            .by_number
            .values()
            .filter_map(|guest| Some((guest.idle_since()?, guest)));
        if let Some((_, guest)) = idle.min_by_key(|(since, _)| *since) {
            tracing::debug!("all connections are taken, the one idle for longest is closed");
            guest.ask_to_close();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.guests().by_number.remove(&self.number);
        self.room.changed.notify_one();
    }
}
