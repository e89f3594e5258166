//! Provisions leased nodes.

use std::net::IpAddr;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde_json::Value;

use super::backoff;
use super::failure;
use super::job::{self, AT_ONCE, Job};
use super::lease;
use crate::context::Ctx;
use crate::db::nodes::NodeRow;
use crate::db::transitions::{self, Change};
use crate::db::{DbError, Unique, leases};
use crate::lifecycle::nodes::ssh_target;
use crate::lifecycle::rules;
use crate::node_state::Transition;
use crate::nodes::mechanism::{NodeResult, match_provisioned, result_hostname};

/// Runs the mechanism for nodes under one lease, and writes the result of each: ready, postponed or failed.
pub async fn provision_nodes(
    ctx: &Ctx,
    work: &Job<'_>,
    nodes: Vec<NodeRow>,
) -> Result<(), DbError> {
    let nodes = failure::fail_interrupted_too_often(ctx, work, nodes).await?;
    if nodes.is_empty() {
        return Ok(());
    }
    let inputs: Vec<_> = nodes.iter().map(job::mechanism_node).collect();
    let results = match work.mechanism.provision(&inputs, work.stop).await {
        Ok(results) => results,
        Err(error) => return failure::settle_failure(ctx, work, &nodes, &error).await,
    };
    // A node that cannot be written must not block the others.
    let each = nodes.into_iter().zip(match_provisioned(&inputs, &results));
    let ends = each.map(|(node, result)| async move {
        match result {
            Ok(result) => make_ready(ctx, work, &node, result).await,
            Err(cause) => {
                let detail = format!("provisioning node failed: {cause}");
                failure::postpone_or_fail(ctx, work, &node, &detail, None).await
            }
        }
    });
    let ends: Vec<_> = stream::iter(ends).buffer_unordered(AT_ONCE).collect().await;
    ends.into_iter().collect()
}

async fn make_ready(
    ctx: &Ctx,
    work: &Job<'_>,
    node: &NodeRow,
    result: NodeResult,
) -> Result<(), DbError> {
    let ipaddr = result
        .get("ipaddr")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let hostname = match result_hostname(&result) {
        Some(hostname) => hostname.to_owned(),
        None => look_up_hostname(&ipaddr).await,
    };
    let mut row = node.clone();
    row.hostname = Some(hostname.clone());
    row.ipaddr = Some(ipaddr.clone());
    row.data.0.insert("provision".into(), Value::Object(result));
    if row.data.0.contains_key(rules::STALE_KEYS)
        && let Some(target) = ssh_target(&row)
    {
        let removed = if work.keeper.is_fresh() {
            let removed = ctx.ssh.remove_keys(&target).await;
            removed.map_err(|error| error.to_string())
        } else {
            Err("the lease is lost".to_owned())
        };
        if let Err(error) = removed {
            let detail = format!("a former tenant's key may still be on the node: {error}");
            return failure::postpone_or_fail(ctx, work, node, &detail, None).await;
        }
    }
    row.data.0.shift_remove("error");
    row.data.0.shift_remove(rules::STALE_KEYS);
    work.keeper.expect_fewer(1);
    let write = || write_ready(ctx, work, &row);
    match lease::persist(ctx, write).await {
        Ok(true) => {
            tracing::info!(
                node.id,
                pool.name = work.pool,
                hostname,
                ipaddr,
                "node ready"
            );
        }
        Ok(false) => tracing::warn!(
            node.id,
            "provisioned, but the lease is lost or the node is retired"
        ),
        Err(DbError::NotUnique(unique)) => {
            let taken = match unique {
                Unique::NodeHostname => format!("hostname {hostname}"),
                _ => format!("ipaddr {ipaddr}"),
            };
            let detail = format!("provisioning node failed: another active node has {taken}");
            work.keeper.expect_again();
            return failure::postpone_or_fail(ctx, work, node, &detail, None).await;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Writes a provisioned node. False when the lease is lost, or an operator has retired the node: then the row says how
/// to deprovision it.
async fn write_ready(ctx: &Ctx, work: &Job<'_>, node: &NodeRow) -> Result<bool, DbError> {
    let hostname = node.hostname.as_deref().unwrap_or_default();
    let ipaddr = node.ipaddr.as_deref().unwrap_or_default();
    let made = Change {
        lease: Some(work.keeper.lease()),
        data: Some(&node.data),
        hostname: Some(hostname),
        ipaddr: Some(ipaddr),
        ..Change::default()
    };
    let write = async |mut tx| {
        let taken = leases::registered_elsewhere(&mut tx, node.id, hostname, ipaddr).await?;
        if let Some(unique) = taken {
            return Err(DbError::NotUnique(unique));
        }
        let ready = transitions::apply_to(&mut tx, Transition::MakeReady, node, &made).await?;
        if ready.is_some() {
            backoff::note_success(&mut tx, work).await?;
        } else {
            transitions::apply(&mut tx, Transition::KeepMade, &[node.id], &made).await?;
        }
        Ok(ready.is_some())
    };
    ctx.db.transaction(write).await
}

/// The time limit of a name server.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the name of an address, or the address itself if it has none.
async fn look_up_hostname(ipaddr: &str) -> String {
    let Ok(address) = ipaddr.parse::<IpAddr>() else {
        return ipaddr.to_owned();
    };
    let look_up = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&address));
    match tokio::time::timeout(LOOK_UP_TIMEOUT, look_up).await {
        Ok(Ok(Ok(name))) if !name.is_empty() => name,
        _ => {
            tracing::debug!(ipaddr, "no name for this address");
            ipaddr.to_owned()
        }
    }
}
