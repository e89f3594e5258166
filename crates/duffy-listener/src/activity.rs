//! What happens on a connection, and since when nothing does.
//!
//! hyper's own timers do not see a client that says nothing at all, nor one that does not fetch
//! its reply.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Limits;

/// What happens on a connection.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<State>,
    /// Says that the connection shall make room.
    close: Notify,
    /// Says that a connection became idle; shared by all of them.
    idle: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    /// Requests at work, those counted that wait for their bodies.
    running: usize,
    /// Of these, those that wait for their bodies, or have done so before: their clients are slow.
    waiting: usize,
    begun: bool,
    /// A body was left unread.
    unread: bool,
    /// Was told to make room.
    closing: bool,
    /// When the last request ended, or began to wait for its body.
    since: Instant,
}

impl State {
    /// Nothing runs here but what waits for the client.
    fn is_idle(&self) -> bool {
        self.running <= self.waiting
    }
}

impl Activity {
    /// Of a connection that was just made.
    pub fn new(idle: Arc<Notify>) -> Self {
        Self {
            state: Mutex::new(State {
                running: 0,
                waiting: 0,
                begun: false,
                unread: false,
                closing: false,
                since: Instant::now(),
            }),
            close: Notify::new(),
            idle,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when nothing runs on it, unless something does.
    pub fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        state.is_idle().then_some(state.since)
    }

    /// Whether it was told to make room, and has not said that it won't.
    pub fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// Tells the connection to make room.
    pub fn ask_to_close(&self) {
        self.state().closing = true;
        self.close.notify_one();
    }

    /// Ends when the connection was told to make room and nothing runs on it.
    pub async fn must_close(&self) {
        loop {
            self.close.notified().await;
            let mut state = self.state();
            if state.is_idle() {
                return;
            }
            // A request came in just then.
            state.closing = false;
            self.idle.notify_one();
        }
    }

    /// Ends when nothing has run for as long as is allowed.
    pub async fn idle_beyond(&self, limits: &Limits) {
        loop {
            let (running, deadline) = {
                let state = self.state();
                let limit = if state.begun {
                    limits.idle
                } else {
                    limits.header_read
                };
                (state.running > 0, state.since + limit)
            };
            if running {
                tokio::time::sleep(limits.idle).await;
            } else if deadline <= Instant::now() {
                return;
            } else {
                tokio::time::sleep_until(deadline).await;
            }
        }
    }

    /// Whether bytes of a request may still come that nobody has read.
    pub fn has_unread(&self) -> bool {
        self.state().unread
    }
}

/// A request that runs.
#[derive(Debug)]
pub struct Running(Arc<Activity>);

impl Running {
    /// It begins.
    pub fn begin(activity: &Arc<Activity>) -> Self {
        let mut state = activity.state();
        state.running += 1;
        state.begun = true;
        drop(state);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        state.since = Instant::now();
        drop(state);
        self.0.idle.notify_one();
    }
}

/// A request's body that comes in.
#[derive(Debug)]
pub struct Receiving {
    activity: Arc<Activity>,
    waiting: bool,
}

impl Receiving {
    /// It begins.
    pub fn begin(activity: &Arc<Activity>) -> Self {
        Self {
            activity: Arc::clone(activity),
            waiting: false,
        }
    }

    /// The client lets the server wait. It does so from now on, however small the pieces that come.
    pub fn wait(&mut self) {
        if self.waiting {
            return;
        }
        self.waiting = true;
        let mut state = self.activity.state();
        state.waiting += 1;
        state.since = Instant::now();
        drop(state);
        self.activity.idle.notify_one();
    }

    /// The body is there, or will never be.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.activity.state().waiting -= 1;
        }
    }

    /// Nobody reads the rest of the body.
    pub fn leave_unread(&mut self) {
        self.activity.state().unread = true;
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.end();
    }
}
