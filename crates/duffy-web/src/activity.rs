//! Tracks the activity on a connection, and since when it is idle.
//!
//! hyper's own timers notice neither a client that sends nothing nor one that does not read its reply.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::Limits;
use crate::mutex::lock;

/// The activity on a connection.
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
    /// Those of them that wait for the client: a part of the body was late, or the client has not read the reply yet.
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
    /// Whether all running requests wait for the client.
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

    /// Since when the connection is idle. `None` if it is not.
    pub fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        state.is_idle().then_some(state.since)
    }

    /// Whether the connection was asked to close and has not declined.
    pub fn is_closing(&self) -> bool {
        lock(&self.state).closing
    }

    /// Asks the connection to close if it is idle.
    pub fn ask_to_close(&self) {
        lock(&self.state).closing = true;
        self.close.notify_one();
    }

    /// Makes the connection close even if requests run.
    pub fn cut_off(&self) {
        lock(&self.state).cut_off = true;
        self.close.notify_one();
    }

    /// Records that a reply made progress.
    pub fn note_progress(&self, now: Instant) {
        lock(&self.state).since = now;
    }

    /// Waits until the connection has to close: it was asked to and is idle, or it is cut off.
    pub async fn must_close(&self) {
        loop {
            self.close.notified().await;
            let mut state = lock(&self.state);
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
                let state = lock(&self.state);
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

    /// Records that the rest of a request's body will not be read.
    pub fn leave_unread(&self) {
        lock(&self.state).unread = true;
    }

    /// Whether a request's body was left unread, so that the client may still be sending it.
    pub fn has_unread(&self) -> bool {
        lock(&self.state).unread
    }
}

/// Counts a request as running until it is dropped.
#[derive(Debug)]
pub struct RunningRequest {
    /// The activity on its connection.
    pub activity: Arc<Activity>,
}

impl RunningRequest {
    /// Counts a request that begins.
    pub fn begin(activity: &Arc<Activity>) -> Self {
        let mut state = lock(&activity.state);
        state.running += 1;
        state.begun = true;
        drop(state);
        Self {
            activity: Arc::clone(activity),
        }
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        let mut state = lock(&self.activity.state);
        state.running -= 1;
        state.since = Instant::now();
        drop(state);
        self.activity.idle.notify_one();
    }
}

/// Counts a running request as waiting for its client until it is dropped. Drop it before its [`RunningRequest`]: the other way
/// round, the connection is idle for a moment although another request runs.
#[derive(Debug)]
pub struct WaitingRequest(Arc<Activity>);

impl WaitingRequest {
    /// Counts a request that begins to wait.
    pub fn begin(activity: &Arc<Activity>) -> Self {
        let mut state = lock(&activity.state);
        state.waiting += 1;
        state.since = Instant::now();
        drop(state);
        activity.idle.notify_one();
        Self(Arc::clone(activity))
    }
}

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        lock(&self.0.state).waiting -= 1;
    }
}
