//! Whether all fits together: what Duffy promises, looked at in the database and on the nodes.
//!
//! The promises are numbered, and a finding names the one that is broken. Notes say what explains a
//! shortage, and what could not be looked at. What clients were told is not known here: that a
//! granted session stays granted, promise 6, is for those to check who remember.

mod invariants;
mod keys;
mod machines;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::context::Ctx;
use crate::db::DbError;
use crate::db::snapshot::take_snapshot;
use crate::lifecycle::rules;
use crate::lifecycle::views;

pub use invariants::Invariant;

/// How closely to look.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Nothing has been asked of Duffy for a while: then every pool should be full, and no node on
    /// its way without a reason.
    pub at_rest: bool,
    /// Look at the keys on nodes, by SSH.
    pub look_at_nodes: bool,
}

/// Something that is not as promised, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The number of the promise.
    pub invariant: u8,
    /// What is the matter.
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
    fn new(invariant: Invariant, message: impl Into<String>) -> Self {
        Self {
            invariant: invariant.number(),
            message: message.into(),
            node_id: None,
            session_id: None,
            pool: None,
        }
    }

    fn of_node(self, id: i64) -> Self {
        Self {
            node_id: Some(id),
            ..self
        }
    }

    fn of_session(self, id: i64) -> Self {
        Self {
            session_id: Some(id),
            ..self
        }
    }

    fn of_pool(self, pool: &str) -> Self {
        Self {
            pool: Some(pool.to_owned()),
            ..self
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// What is not as promised.
    pub findings: Vec<Finding>,
    /// What explains something, or could not be looked at.
    pub notes: Vec<Finding>,
    /// How many nodes there are that are not retired.
    pub nodes: usize,
    /// On how many of them the keys were looked at.
    pub nodes_looked_at: usize,
    /// How many sessions are running.
    pub sessions: usize,
}

impl CheckReport {
    fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn note(&mut self, note: Finding) {
        self.notes.push(note);
    }
}

/// Looks at everything.
///
/// # Errors
/// When the database cannot be read. What cannot be seen of nodes is a note.
pub async fn check(ctx: &Ctx, options: CheckOptions) -> Result<CheckReport, DbError> {
    let machines = machines::list(ctx);
    let snapshot = take_snapshot(&ctx.db).await?;
    let mut report = CheckReport {
        nodes: snapshot.nodes.len(),
        sessions: snapshot.sessions.len(),
        ..CheckReport::default()
    };
    let pools = ctx.config.nodepools.iter();
    let pools = pools.flat_map(duffy_config::NodePools::concrete);
    let levels = pools.filter_map(|pool| {
        let reuse = pool.reuse_nodes.as_ref();
        let level = invariants::Level {
            fill_level: pool.fill_level?,
            // A template that is wrong is no good reason for a shortage.
            reuse: reuse.map(|reuse| rules::wanted_members(pool, reuse).unwrap_or_default()),
        };
        Some((pool.name.clone(), level))
    });
    let levels: BTreeMap<_, _> = levels.collect();
    let expected = invariants::Expected {
        at_rest: options.at_rest,
        lease: ctx.config.tasks.lease,
        quota: &|tenant| views::effective_quota(ctx, tenant),
        levels: &levels,
    };
    invariants::judge(&snapshot, &expected, &mut report);
    machines::look(ctx, &snapshot, &machines, &mut report);
    if options.look_at_nodes {
        keys::look(ctx, &snapshot, &mut report).await?;
    }
    report.findings.sort_by_key(|finding| finding.invariant);
    Ok(report)
}
