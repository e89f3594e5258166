//! Checks the tenants' keys on the nodes.

use std::collections::HashMap;

use duffy_api::NodeState;
use futures::stream::{self, StreamExt};

use super::report::{CheckReport, Finding, Invariant};
use crate::context::Ctx;
use crate::db::nodes::{self, NodeRow};
use crate::db::snapshot::Snapshot;
use crate::db::tenants::TenantRow;
use crate::db::{Db, DbError};
use crate::lifecycle::nodes::ssh_target;
use crate::lifecycle::rules;

/// How many nodes are read at the same time.
const AT_ONCE: usize = 32;

pub(super) async fn look(
    ctx: &Ctx,
    snapshot: &Snapshot,
    report: &mut CheckReport,
) -> Result<(), DbError> {
    let session_of: HashMap<i64, i64> = snapshot
        .uses
        .iter()
        .map(|row| (row.node.id, row.session_id))
        .collect();
    let tenant_of: HashMap<i64, i64> = snapshot
        .sessions
        .iter()
        .map(|session| (session.id, session.tenant_id))
        .collect();
    let is_settled =
        |node: &&NodeRow| matches!(node.state.0, NodeState::Ready | NodeState::Deployed);
    let each = snapshot
        .nodes
        .iter()
        .filter(is_settled)
        .map(|node| async move {
            let found = match ssh_target(node) {
                Some(target) => ctx.ssh.read_tenant_keys(&target).await,
                None => return (node, Err("has no address".to_owned())),
            };
            (node, found.map_err(|error| error.to_string()))
        });
    let looks: Vec<_> = stream::iter(each).buffer_unordered(AT_ONCE).collect().await;
    for (node, found) in looks {
        if !is_unchanged(&ctx.db, node).await? {
            // It has been lent or returned since, so its keys do not belong to the snapshot.
            continue;
        }
        let owner = session_of
            .get(&node.id)
            .and_then(|session| tenant_of.get(session))
            .and_then(|id| snapshot.tenants.iter().find(|tenant| tenant.id == *id));
        let broken = Invariant::KeysAreRight;
        match found {
            Err(error) => {
                let message = format!("its keys cannot be read: {error}");
                report.note(Finding::new(broken, message).of_node(node.id));
            }
            Ok(keys) => {
                report.nodes_looked_at += 1;
                let keys = keys.unwrap_or_default();
                for message in judge(node, &keys, owner, &snapshot.tenants) {
                    report.find(Finding::new(broken, message).of_node(node.id));
                }
            }
        }
    }
    Ok(())
}

async fn is_unchanged(db: &Db, node: &NodeRow) -> Result<bool, DbError> {
    let find = async |mut tx| nodes::find_node(&mut tx, node.id).await;
    let now = db.read(find).await?;
    Ok(now.is_some_and(|now| now.fence == node.fence && now.state == node.state))
}

/// Returns what is wrong with a node's keys. A tenant may change its own node. Only another tenant's key is certainly
/// wrong.
fn judge(
    node: &NodeRow,
    keys: &str,
    owner: Option<&TenantRow>,
    tenants: &[TenantRow],
) -> Vec<String> {
    let carries = |tenant: &TenantRow| {
        let mut own = lines(&tenant.ssh_key).peekable();
        own.peek().is_some() && own.all(|key| lines(keys).any(|line| line == key))
    };
    let mut wrong = Vec::new();
    let is_clean = || {
        // Or Duffy knows, and takes the key off before the node is ready again.
        lines(keys).next().is_none() || node.data.0.contains_key(rules::STALE_KEYS)
    };
    match (node.state.0, owner) {
        (NodeState::Ready, _) if !is_clean() => {
            let whose = tenants.iter().find(|tenant| carries(tenant));
            let whose = whose.map_or("unknown", |tenant| &tenant.name);
            wrong.push(format!("is ready, and has a tenant's key on it: {whose}"));
        }
        (NodeState::Deployed, Some(owner)) => {
            if !carries(owner) {
                wrong.push(format!(
                    "lacks the key of its tenant {}, unless that changed it",
                    owner.name
                ));
            }
            let same = |tenant: &&TenantRow| tenant.id == owner.id || is_same(tenant, owner);
            for other in tenants.iter().filter(|tenant| !same(tenant)) {
                if carries(other) {
                    wrong.push(format!(
                        "is lent to {}, and has the key of {} on it",
                        owner.name, other.name
                    ));
                }
            }
        }
        _ => {}
    }
    wrong
}

fn is_same(one: &TenantRow, other: &TenantRow) -> bool {
    lines(&one.ssh_key).all(|key| lines(&other.ssh_key).any(|line| line == key))
}

fn lines(keys: &str) -> impl Iterator<Item = &str> {
    keys.lines().map(str::trim).filter(|line| !line.is_empty())
}
