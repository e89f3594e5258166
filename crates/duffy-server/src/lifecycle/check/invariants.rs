//! The checks that need only the tables, as functions of a snapshot.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use chrono::TimeDelta;
use duffy_api::NodeState;
use serde_json::{Map, Value};

use super::report::{CheckReport, Finding, Invariant};
use crate::db::Timestamp;
use crate::db::nodes::NodeRow;
use crate::db::pools::PoolStateRow;
use crate::db::snapshot::Snapshot;
use crate::db::tenants::TenantRow;
use crate::lifecycle::rules;
use crate::node_state::{self, Shape};

/// What a snapshot is compared with.
pub(super) struct Expected<'a> {
    pub(super) at_rest: bool,
    pub(super) lease: Duration,
    pub(super) quota: &'a dyn Fn(&TenantRow) -> i64,
    pub(super) levels: &'a BTreeMap<String, Level>,
}

/// How many nodes a pool should have.
#[derive(Debug, Clone)]
pub(super) struct Level {
    pub(super) fill_level: u32,
    /// The members that reused nodes must have; `None` if the pool makes new nodes.
    pub(super) reuse: Option<Map<String, Value>>,
}

/// How long a node may wait for a worker to claim it: a poll, and nodes before it.
const PATIENCE: TimeDelta = TimeDelta::seconds(60);

pub(super) fn judge(snapshot: &Snapshot, expected: &Expected<'_>, report: &mut CheckReport) {
    nothing_stuck(snapshot, expected, report);
    lent_once(snapshot, report);
    nodes_and_sessions_agree(snapshot, report);
    within_quota(snapshot, expected, report);
    pools_full(snapshot, expected, report);
    rows_are_sound(snapshot, report);
}

fn rows_are_sound(snapshot: &Snapshot, report: &mut CheckReport) {
    for node in &snapshot.nodes {
        let shape = Shape {
            state: node.state.0,
            leased: node.lease_expires_at.is_some(),
            retired: node.retired_at.is_some(),
        };
        if let Some(wrong) = shape.contradiction() {
            let message = format!("is {}, and {wrong}", node.state.0);
            report.find(Finding::new(Invariant::RowsAreSound, message).of_node(node.id));
        }
    }
}

fn state_of<'s>(snapshot: &'s Snapshot, node: &NodeRow) -> Option<&'s PoolStateRow> {
    let of_node =
        |row: &&PoolStateRow| Some(&row.pool) == node.pool.as_ref() && row.work.0 == node.state.0;
    snapshot.pools.iter().find(of_node)
}

fn nothing_stuck(snapshot: &Snapshot, expected: &Expected<'_>, report: &mut CheckReport) {
    let lease = TimeDelta::from_std(expected.lease).unwrap_or(PATIENCE);
    let leased = |node: &&NodeRow| {
        node.lease_expires_at
            .is_some_and(|until| until > snapshot.now)
    };
    let kind = |node: &NodeRow| (node.pool.clone(), node.state.0.as_str());
    let in_work_on: HashSet<_> = snapshot.nodes.iter().filter(leased).map(kind).collect();
    let nodes = snapshot.nodes.iter();
    for node in nodes.filter(|node| node_state::is_leased(node.state.0)) {
        let state = node.state.0;
        if node.held_at.is_some() {
            let message = format!("is {state}, and an operator holds it");
            report.note(Finding::new(Invariant::NothingStuck, message).of_node(node.id));
            continue;
        }
        let pool = state_of(snapshot, node);
        let waits_until = [node.retry_at, pool.and_then(|pool| pool.retry_at)];
        let due = waits_until.into_iter().flatten().max();
        let in_work = node.lease_expires_at.filter(|until| *until > snapshot.now);
        let paused = due.is_some_and(|due| due.0 + lease + PATIENCE > snapshot.now.0);
        // It may wait behind other nodes of its pool.
        let waits = in_work.is_some() || in_work_on.contains(&kind(node));
        if waits && !expected.at_rest || paused {
            continue;
        }
        let since = [
            node.state_since.or(Some(node.created_at)),
            node.lease_expires_at,
            due,
        ];
        let since = since.into_iter().flatten().max().unwrap_or(node.created_at);
        let waited = snapshot.now.0 - since.0;
        if expected.at_rest || waited > lease + PATIENCE {
            let seconds = waited.num_seconds();
            let message = if in_work.is_some() {
                format!("is {state}, and a process works on it")
            } else {
                format!("is {state}, and no process has worked on it for {seconds} s")
            };
            report.find(Finding::new(Invariant::NothingStuck, message).of_node(node.id));
        }
    }
}

fn lent_once(snapshot: &Snapshot, report: &mut CheckReport) {
    let mut sessions_of: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in &snapshot.uses {
        sessions_of
            .entry(row.node.id)
            .or_default()
            .push(row.session_id);
    }
    for (node, sessions) in sessions_of {
        if sessions.len() > 1 {
            let message = format!("is in the running sessions {sessions:?}");
            report.find(Finding::new(Invariant::LentOnce, message).of_node(node));
        }
    }
}

fn nodes_and_sessions_agree(snapshot: &Snapshot, report: &mut CheckReport) {
    let broken = Invariant::NodesAndSessionsAgree;
    let in_session: HashSet<i64> = snapshot.uses.iter().map(|row| row.node.id).collect();
    for node in &snapshot.nodes {
        if node_state::is_in_session(node.state.0) && !in_session.contains(&node.id) {
            let message = format!("is {}, but in no running session", node.state.0);
            report.find(Finding::new(broken, message).of_node(node.id));
        }
    }
    for row in &snapshot.uses {
        let node = &row.node;
        if node.retired_at.is_some() || !node_state::is_in_session(node.state.0) {
            let message = format!("has a node that is {}", node.state.0);
            let finding = Finding::new(broken, message).of_session(row.session_id);
            report.find(finding.of_node(node.id));
        }
    }
    let has_nodes: HashSet<i64> = snapshot.uses.iter().map(|row| row.session_id).collect();
    for session in &snapshot.sessions {
        if !has_nodes.contains(&session.id) {
            let finding = Finding::new(broken, "is running, but has no nodes");
            report.find(finding.of_session(session.id));
        }
    }
}

fn within_quota(snapshot: &Snapshot, expected: &Expected<'_>, report: &mut CheckReport) {
    let tenant_of: HashMap<i64, i64> = snapshot
        .sessions
        .iter()
        .map(|session| (session.id, session.tenant_id))
        .collect();
    let mut held: HashMap<i64, i64> = HashMap::new();
    for row in &snapshot.uses {
        if let Some(tenant) = tenant_of.get(&row.session_id) {
            *held.entry(*tenant).or_default() += 1;
        }
    }
    for tenant in snapshot.tenants.iter().filter(|tenant| !tenant.is_admin) {
        let held = held.get(&tenant.id).copied().unwrap_or(0);
        let quota = (expected.quota)(tenant);
        if held > quota {
            let message = format!(
                "tenant {} holds {held} nodes and may hold {quota}; was its quota lowered?",
                tenant.name
            );
            report.find(Finding::new(Invariant::WithinQuota, message));
        }
    }
}

fn pools_full(snapshot: &Snapshot, expected: &Expected<'_>, report: &mut CheckReport) {
    for (pool, level) in expected.levels {
        let counts = |node: &&NodeRow| {
            let state = node.state.0;
            let coming = !expected.at_rest && state == NodeState::Provisioning;
            node.pool.as_ref() == Some(pool)
                && node.held_at.is_none()
                && (state == NodeState::Ready || coming)
        };
        let filled = snapshot.nodes.iter().filter(counts).count();
        let wanted = level.fill_level;
        if filled >= wanted as usize {
            continue;
        }
        let reason = shortage_on_record(snapshot, pool).or_else(|| used_up(snapshot, level));
        let is_explained = reason.is_some();
        let reason = reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let message = format!("has {filled} of {wanted} nodes{reason}");
        let finding = Finding::new(Invariant::PoolsFull, message).of_pool(pool);
        if expected.at_rest && !is_explained {
            report.find(finding);
        } else {
            // Without a reason, a session may have just taken nodes. A worker fills the pool soon.
            report.note(finding);
        }
    }
}

/// Returns why a pool may lack nodes.
fn shortage_on_record(snapshot: &Snapshot, pool: &str) -> Option<String> {
    let of_pool = |row: &&PoolStateRow| row.pool == pool && row.work.0 == NodeState::Provisioning;
    if let Some(row) = snapshot.pools.iter().find(of_pool) {
        if row.drained_at.is_some() {
            let reason = row.reason.clone().unwrap_or_default();
            return Some(format!("it is drained: {reason}"));
        }
        if row.retry_at.is_some() {
            let detail = row.detail.clone().unwrap_or_default();
            return Some(format!(
                "its mechanism failed {} times in a row: {detail}",
                row.failures
            ));
        }
    }
    let waits = |node: &&NodeRow| {
        let paused = node.retry_at.is_some_and(|at: Timestamp| at > snapshot.now);
        let on_its_way = node_state::is_leased(node.state.0) && paused;
        node.pool.as_deref() == Some(pool) && (on_its_way || node.state.0 == NodeState::Failed)
    };
    let node = snapshot.nodes.iter().find(waits)?;
    let error = node.data.error_detail().unwrap_or("unknown");
    Some(format!("node {} is {}: {error}", node.id, node.state.0))
}

/// Returns a reason if all nodes that a pool could reuse are in use.
fn used_up(snapshot: &Snapshot, level: &Level) -> Option<String> {
    let wanted = level.reuse.as_ref()?;
    let fits = |node: &NodeRow| {
        node.reusable
            && node.pool.is_none()
            && node.held_at.is_none()
            && node.state.0 == NodeState::Unused
            && rules::matches_reuse(&node.data.0, wanted)
    };
    let any = snapshot.nodes.iter().any(fits);
    (!any).then(|| "no unused node fits it".to_owned())
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
