//! The log of a run: the replies to clients, the sessions that these replies granted, counters, and findings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use duffy_server::clock::Clock;
use serde_json::Value;

use crate::support::Scratch;

/// A violation, and the nodes and sessions that it concerns.
#[derive(Debug, Clone, Default)]
pub struct Finding {
    pub what: String,
    pub nodes: Vec<i64>,
    pub sessions: Vec<i64>,
}

impl Finding {
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ..Self::default()
        }
    }

    pub fn of_node(mut self, id: i64) -> Self {
        self.nodes.push(id);
        self
    }

    pub fn of_session(mut self, id: i64) -> Self {
        self.sessions.push(id);
        self
    }
}

/// Whether a client has retired a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    /// No client has requested it.
    NotRequested,
    /// Requested, without a reply so far.
    Requested,
    /// A reply says that the session is retired.
    Confirmed,
}

/// A session whose 201 a client has received.
#[derive(Debug, Clone)]
pub struct KnownSession {
    pub tenant: String,
    pub nodes: Vec<i64>,
    pub expires_at: DateTime<Utc>,
    pub retirement: Retirement,
}

impl KnownSession {
    /// Whether the session must be active. The database uses the clock of this host.
    pub fn must_be_active(&self) -> bool {
        self.retirement == Retirement::NotRequested && Clock.now() < self.expires_at
    }
}

/// See the module.
pub struct Log {
    start: Instant,
    inner: Mutex<Inner>,
    file: Mutex<File>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

#[derive(Default)]
struct Inner {
    counts: BTreeMap<String, u64>,
    sessions: BTreeMap<i64, KnownSession>,
    findings: Vec<Finding>,
    last_grant: Duration,
}

impl Log {
    pub fn new(scratch: &Scratch, start: Instant) -> Self {
        Self {
            start,
            inner: Mutex::default(),
            file: Mutex::new(File::create(scratch.join("clients.log")).unwrap()),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        }
    }

    /// Waits. Returns true, possibly early, if the run stops.
    pub fn wait(&self, time: Duration) -> bool {
        let stop = self.stop.lock().unwrap();
        let waited = self.stopped.wait_timeout_while(stop, time, |stop| !*stop);
        *waited.unwrap().0
    }

    /// Stops the run: all `wait` calls return true.
    pub fn stop(&self) {
        *self.stop.lock().unwrap() = true;
        self.stopped.notify_all();
    }

    /// Writes a line to the log file.
    pub fn write(&self, text: &str) {
        let at = self.start.elapsed().as_secs_f64();
        writeln!(self.file.lock().unwrap(), "{at:8.3} {text}").unwrap();
    }

    pub fn count(&self, what: &str) {
        let mut inner = self.inner.lock().unwrap();
        *inner.counts.entry(what.to_owned()).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.inner.lock().unwrap().counts.clone()
    }

    pub fn report(&self, finding: Finding) {
        self.write(&format!("FOUND {finding:?}"));
        self.inner.lock().unwrap().findings.push(finding);
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.inner.lock().unwrap().findings.clone()
    }

    pub fn sessions(&self) -> BTreeMap<i64, KnownSession> {
        self.inner.lock().unwrap().sessions.clone()
    }

    /// The time since the last session was granted.
    pub fn time_since_grant(&self) -> Duration {
        let last = self.inner.lock().unwrap().last_grant;
        self.start.elapsed().saturating_sub(last)
    }

    /// Starts to measure the time without a granted session.
    pub fn start_grant_timer(&self) {
        self.write("BEGIN");
        self.inner.lock().unwrap().last_grant = self.start.elapsed();
    }

    /// Adds a session whose 201 a client has received. Reports nodes that another session has.
    pub fn add_session(&self, tenant: &str, session: &Value) -> i64 {
        let id = session["id"].as_i64().unwrap();
        let nodes = session["nodes"].as_array().unwrap();
        let nodes: Vec<i64> = nodes
            .iter()
            .map(|node| node["id"].as_i64().unwrap())
            .collect();
        let known = KnownSession {
            tenant: tenant.to_owned(),
            expires_at: session["expires_at"].as_str().unwrap().parse().unwrap(),
            nodes,
            retirement: Retirement::NotRequested,
        };
        let mut twice = Vec::new();
        {
            let mut inner = self.inner.lock().unwrap();
            inner.last_grant = self.start.elapsed();
            if known.must_be_active() {
                for (other, theirs) in &inner.sessions {
                    let both = known
                        .nodes
                        .iter()
                        .filter(|node| theirs.nodes.contains(node));
                    if theirs.must_be_active() {
                        twice.extend(both.map(|node| (*node, *other)));
                    }
                }
            }
            if inner.sessions.insert(id, known).is_some() {
                twice.push((0, id));
            }
        }
        for (node, other) in twice {
            let what = format!("node {node} is in sessions {other} and {id}");
            self.report(
                Finding::new(what)
                    .of_node(node)
                    .of_session(other)
                    .of_session(id),
            );
        }
        id
    }

    /// Whether a client must be able to use the session's nodes for at least half a second.
    pub fn must_be_active(&self, id: i64) -> bool {
        let inner = self.inner.lock().unwrap();
        let soon = Clock.now() + Duration::from_millis(500);
        let active = |known: &KnownSession| known.must_be_active() && soon < known.expires_at;
        inner.sessions.get(&id).is_some_and(active)
    }

    /// Whether the session has expired.
    pub fn has_expired(&self, id: i64) -> bool {
        let inner = self.inner.lock().unwrap();
        let expired = |known: &KnownSession| Clock.now() >= known.expires_at;
        inner.sessions.get(&id).is_none_or(expired)
    }

    /// Sets the retirement of a session. Ignores sessions whose 201 no client has received.
    pub fn set_retirement(&self, id: i64, retirement: Retirement) {
        if let Some(known) = self.inner.lock().unwrap().sessions.get_mut(&id) {
            known.retirement = retirement;
        }
    }

    pub fn set_expiry(&self, id: i64, expires_at: DateTime<Utc>) {
        if let Some(known) = self.inner.lock().unwrap().sessions.get_mut(&id) {
            known.expires_at = expires_at;
        }
    }
}

/// Replaces each number, so that texts that differ only in numbers become equal.
pub fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('N') {
            out.push('N');
        }
    }
    out
}
