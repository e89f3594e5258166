//! Tracks what happens on a connection, and since when it is idle.
//!
//! hyper's own timers notice neither a client that sends nothing nor one that does not read its reply.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Limits;

/// What happens on a connection.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<State>,
    /// Notified when the connection has to close.
    close: Notify,
    /// Notified when the connection becomes idle. All connections share it.
    idle: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    /// Requests that run, from their header until their reply is sent.
    running: usize,
    /// Those of them that wait for the client: a part of the body was late, or the reply is not read yet.
    waiting: usize,
    /// There was a request.
    begun: bool,
    /// A body was left unread.
    unread: bool,
    /// The connection was asked to close.
    closing: bool,
    /// The connection has to close even if requests run.
    cut_off: bool,
    /// When a request ended, began to wait for the client, or made progress for the last time.
    since: Instant,
}

impl State {
    /// No request runs that does not wait for the client.
    fn is_idle(&self) -> bool {
        self.running <= self.waiting
    }
}

impl Activity {
    /// The activity of a new connection.
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

    /// Since when the connection is idle. `None` if it is not.
    pub fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        state.is_idle().then_some(state.since)
    }

    /// Whether the connection was asked to close and has not declined.
    pub fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// Asks the connection to close if it is idle.
    pub fn ask_to_close(&self) {
        self.state().closing = true;
        self.close.notify_one();
    }

    /// Makes the connection close even if requests run.
    pub fn cut_off(&self) {
        self.state().cut_off = true;
        self.close.notify_one();
    }

    /// Records that a reply made progress.
    pub fn note_progress(&self, now: Instant) {
        self.state().since = now;
    }

    /// Waits until the connection has to close: it was asked to and is idle, or it is cut off.
    pub async fn must_close(&self) {
        loop {
            self.close.notified().await;
            let mut state = self.state();
            if state.cut_off || state.is_idle() {
                return;
            }
            // A request began in the meantime.
            state.closing = false;
            self.idle.notify_one();
        }
    }

    /// Waits until no request has run for as long as the limits allow.
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

    /// Whether a request's body was left unread, so that the client may still be sending it.
    pub fn has_unread(&self) -> bool {
        self.state().unread
    }
}

/// Counts a request as running until it is dropped.
#[derive(Debug)]
pub struct RunningRequest {
    activity: Arc<Activity>,
    waiting: bool,
}

impl RunningRequest {
    /// A request begins.
    pub fn begin(activity: &Arc<Activity>) -> Self {
        let mut state = activity.state();
        state.running += 1;
        state.begun = true;
        drop(state);
        Self {
            activity: Arc::clone(activity),
            waiting: false,
        }
    }

    /// Its reply is made. It waits for the client to read it.
    pub fn wait(&mut self) {
        self.waiting = true;
        let mut state = self.activity.state();
        state.waiting += 1;
        state.since = Instant::now();
        drop(state);
        self.activity.idle.notify_one();
    }

    /// The activity of its connection.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.running -= 1;
        if self.waiting {
            state.waiting -= 1;
        }
        state.since = Instant::now();
        drop(state);
        self.activity.idle.notify_one();
    }
}

/// A request's body that is being received.
#[derive(Debug)]
pub struct ReceivingBody {
    activity: Arc<Activity>,
    waiting: bool,
}

impl ReceivingBody {
    /// A body begins.
    pub fn begin(activity: &Arc<Activity>) -> Self {
        Self {
            activity: Arc::clone(activity),
            waiting: false,
        }
    }

    /// A part of the body is late. The request counts as waiting from now on, even when further parts come.
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

    /// The body is received, or it failed.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.activity.state().waiting -= 1;
        }
    }

    /// The rest of the body will not be read.
    pub fn leave_unread(&mut self) {
        self.activity.state().unread = true;
    }
}

impl Drop for ReceivingBody {
    fn drop(&mut self) {
        self.end();
    }
}
