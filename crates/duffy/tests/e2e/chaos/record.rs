//! What the clients saw: each answer, who holds which nodes by these answers, and what was wrong with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use duffy_server::clock::Clock;
use serde_json::Value;

use crate::support::Scratch;

/// Something that must not be, and the rows to look at.
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

/// How far the end of a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nobody has asked for it.
    No,
    /// It was asked for, and no answer came.
    Asked,
    /// The answer was that it is over.
    Over,
}

/// A session of which a client has read the 201.
#[derive(Debug, Clone)]
pub struct Seen {
    pub tenant: String,
    pub nodes: Vec<i64>,
    pub expires_at: DateTime<Utc>,
    pub end: End,
}

impl Seen {
    /// Whether it must be there still. The database's clock is this host's.
    pub fn is_held(&self) -> bool {
        self.end == End::No && Clock.now() < self.expires_at
    }
}

/// See the module.
pub struct Record {
    start: Instant,
    inner: Mutex<Inner>,
    journal: Mutex<File>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

#[derive(Default)]
struct Inner {
    counts: BTreeMap<String, u64>,
    sessions: BTreeMap<i64, Seen>,
    findings: Vec<Finding>,
    last_grant: Duration,
}

impl Record {
    pub fn new(scratch: &Scratch, start: Instant) -> Self {
        Self {
            start,
            inner: Mutex::default(),
            journal: Mutex::new(File::create(scratch.join("clients.log")).unwrap()),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        }
    }

    /// Waits, or ends early with true when it is time to stop.
    pub fn wait(&self, time: Duration) -> bool {
        let stop = self.stop.lock().unwrap();
        let waited = self.stopped.wait_timeout_while(stop, time, |stop| !*stop);
        *waited.unwrap().0
    }

    /// Tells all who wait to stop.
    pub fn stop(&self) {
        *self.stop.lock().unwrap() = true;
        self.stopped.notify_all();
    }

    /// Writes a line of the journal.
    pub fn note(&self, text: &str) {
        let at = self.start.elapsed().as_secs_f64();
        writeln!(self.journal.lock().unwrap(), "{at:8.3} {text}").unwrap();
    }

    pub fn count(&self, what: &str) {
        let mut inner = self.inner.lock().unwrap();
        *inner.counts.entry(what.to_owned()).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.inner.lock().unwrap().counts.clone()
    }

    pub fn find(&self, finding: Finding) {
        self.note(&format!("FOUND {finding:?}"));
        self.inner.lock().unwrap().findings.push(finding);
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.inner.lock().unwrap().findings.clone()
    }

    pub fn sessions(&self) -> BTreeMap<i64, Seen> {
        self.inner.lock().unwrap().sessions.clone()
    }

    /// How long ago a session was granted, by the time since the start.
    pub fn since_grant(&self) -> Duration {
        let last = self.inner.lock().unwrap().last_grant;
        self.start.elapsed().saturating_sub(last)
    }

    /// From now on it counts how long no session is granted.
    pub fn begin(&self) {
        self.note("BEGIN");
        self.inner.lock().unwrap().last_grant = self.start.elapsed();
    }

    /// Takes a session down of which the 201 was read. Its nodes must be nobody else's.
    pub fn granted(&self, tenant: &str, session: &Value) -> i64 {
        let id = session["id"].as_i64().unwrap();
        let nodes = session["nodes"].as_array().unwrap();
        let nodes: Vec<i64> = nodes
            .iter()
            .map(|node| node["id"].as_i64().unwrap())
            .collect();
        let seen = Seen {
            tenant: tenant.to_owned(),
            expires_at: session["expires_at"].as_str().unwrap().parse().unwrap(),
            nodes,
            end: End::No,
        };
        let mut twice = Vec::new();
        {
            let mut inner = self.inner.lock().unwrap();
            inner.last_grant = self.start.elapsed();
            if seen.is_held() {
                for (other, theirs) in &inner.sessions {
                    let both = seen.nodes.iter().filter(|node| theirs.nodes.contains(node));
                    if theirs.is_held() {
                        twice.extend(both.map(|node| (*node, *other)));
                    }
                }
            }
            if inner.sessions.insert(id, seen).is_some() {
                twice.push((0, id));
            }
        }
        for (node, other) in twice {
            let what = format!("node {node} lent twice, in sessions {other} and {id}");
            self.find(
                Finding::new(what)
                    .of_node(node)
                    .of_session(other)
                    .of_session(id),
            );
        }
        id
    }

    /// Whether a client must be able to use the session's nodes now, and for a little while.
    pub fn is_held(&self, id: i64) -> bool {
        let inner = self.inner.lock().unwrap();
        let soon = Clock.now() + Duration::from_millis(500);
        let held = |seen: &Seen| seen.is_held() && soon < seen.expires_at;
        inner.sessions.get(&id).is_some_and(held)
    }

    /// Whether a session's time is over.
    pub fn has_expired(&self, id: i64) -> bool {
        let inner = self.inner.lock().unwrap();
        let over = |seen: &Seen| Clock.now() >= seen.expires_at;
        inner.sessions.get(&id).is_none_or(over)
    }

    /// How far the end of a session has come; sessions that no client saw granted are left out.
    pub fn set_end(&self, id: i64, end: End) {
        if let Some(seen) = self.inner.lock().unwrap().sessions.get_mut(&id) {
            seen.end = end;
        }
    }

    pub fn set_expiry(&self, id: i64, expires_at: DateTime<Utc>) {
        if let Some(seen) = self.inner.lock().unwrap().sessions.get_mut(&id) {
            seen.expires_at = expires_at;
        }
    }
}

/// The same text for answers that differ in numbers only.
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
