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
    /// Requests at work, those counted that wait for their bodies, and those whose replies are not sent yet.
    running: usize,
    /// Of these, those that wait for their clients: for a body, now or before, or until a reply is read.
    waiting: usize,
    begun: bool,
    /// A body was left unread.
    unread: bool,
    /// Was told to make room.
    closing: bool,
    /// Is to be closed whatever runs.
    cut_off: bool,
    /// When the last request ended, began to wait for its body, or got on with its reply.
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
                cut_off: false,
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

    /// Closes the connection, whatever runs on it.
    pub fn cut_off(&self) {
        self.state().cut_off = true;
        self.close.notify_one();
    }

    /// A reply gets on.
    pub fn note_progress(&self, now: Instant) {
        self.state().since = now;
    }

    /// Ends when the connection was told to make room and nothing runs on it, or when it is cut off.
    pub async fn must_close(&self) {
        loop {
            self.close.notified().await;
            let mut state = self.state();
            if state.cut_off || state.is_idle() {
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

/// A request that runs, until its reply is sent.
#[derive(Debug)]
pub struct Running {
    activity: Arc<Activity>,
    handed_over: bool,
}

impl Running {
    /// It begins.
    pub fn begin(activity: &Arc<Activity>) -> Self {
        let mut state = activity.state();
        state.running += 1;
        state.begun = true;
        drop(state);
        Self {
            activity: Arc::clone(activity),
            handed_over: false,
        }
    }

    /// Its reply is there. From now on it waits for its client.
    pub fn hand_over(&mut self) {
        self.handed_over = true;
        let mut state = self.activity.state();
        state.waiting += 1;
        state.since = Instant::now();
        drop(state);
        self.activity.idle.notify_one();
    }

    /// What happens on its connection.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.running -= 1;
        if self.handed_over {
            state.waiting -= 1;
        }
        state.since = Instant::now();
        drop(state);
        self.activity.idle.notify_one();
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
