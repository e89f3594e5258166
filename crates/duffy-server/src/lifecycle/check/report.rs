//! What a check finds.

use serde::Serialize;

/// What is promised, as numbered in docs/reliability.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// No node is being worked on longer than its lease and pause allow.
    NothingStuck = 1,
    /// No node is in two running sessions.
    LentOnce = 2,
    /// Each deployed node has its session, and each session its nodes.
    NodesAndSessionsAgree = 3,
    /// No ready node has a tenant's key, and a deployed one only its tenant's.
    KeysAreRight = 4,
    /// No tenant holds more nodes than it may.
    WithinQuota = 5,
    /// Pools are full, or the reason is recorded.
    PoolsFull = 7,
    /// Machines and rows agree.
    NoMachineLost = 8,
    /// Transitions can lead to each row.
    RowsAreSound = 9,
}

/// A broken promise, or a note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The number of the promise.
    pub invariant: u8,
    /// What is wrong, or worth knowing.
    pub message: String,
    /// The node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<i64>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<i64>,
    /// The pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

impl Finding {
    pub(super) fn new(invariant: Invariant, message: impl Into<String>) -> Self {
        Self {
            invariant: invariant as u8,
            message: message.into(),
            node_id: None,
            session_id: None,
            pool: None,
        }
    }

    pub(super) fn of_node(mut self, id: i64) -> Self {
        self.node_id = Some(id);
        self
    }

    pub(super) fn of_session(mut self, id: i64) -> Self {
        self.session_id = Some(id);
        self
    }

    pub(super) fn of_pool(mut self, pool: &str) -> Self {
        self.pool = Some(pool.to_owned());
        self
    }
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// Broken promises.
    pub findings: Vec<Finding>,
    /// Explanations, and what could not be checked.
    pub notes: Vec<Finding>,
    /// How many nodes are not retired.
    pub nodes: usize,
    /// On how many of them the keys were checked.
    pub nodes_looked_at: usize,
    /// How many sessions are running.
    pub sessions: usize,
}

impl CheckReport {
    pub(super) fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(super) fn note(&mut self, note: Finding) {
        self.notes.push(note);
    }
}
