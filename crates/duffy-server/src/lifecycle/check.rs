//! Checks what Duffy promises, in the database and on the nodes.
//!
//! The promises are numbered, and a finding names the one that is broken. Notes explain a shortage, or say what could
//! not be checked. The replies to clients are not known here, so a check cannot tell whether a granted session stays
//! granted, promise 6.

mod invariants;
mod keys;
mod machines;
mod report;

use std::collections::BTreeMap;

use crate::context::Ctx;
use crate::db::DbError;
use crate::db::snapshot::take_snapshot;
use crate::lifecycle::pools::configured_pools;
use crate::lifecycle::rules;
use crate::lifecycle::views;

pub use report::{CheckReport, Finding, Invariant};

/// What to check.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Duffy has had no requests for a while: every pool should be full, and no node being worked on without a reason.
    pub at_rest: bool,
    /// Whether to read the keys on nodes by SSH.
    pub look_at_nodes: bool,
}

/// Checks everything.
///
/// # Errors
/// When the database cannot be read. What cannot be read on nodes is a note.
pub async fn check(ctx: &Ctx, options: CheckOptions) -> Result<CheckReport, DbError> {
    let machines = machines::list(ctx);
    let snapshot = take_snapshot(&ctx.db).await?;
    let mut report = CheckReport {
        nodes: snapshot.nodes.len(),
        sessions: snapshot.sessions.len(),
        ..CheckReport::default()
    };
    let levels = configured_pools(ctx).filter_map(|pool| {
        let reuse = pool.reuse_nodes.as_ref();
        let level = invariants::Level {
            fill_level: pool.fill_level?,
            // A wrong template does not explain a shortage.
            reuse: reuse.map(|reuse| rules::reuse_members(pool, reuse).unwrap_or_default()),
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
