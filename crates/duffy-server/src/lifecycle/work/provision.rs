//! Provisions leased nodes.

use std::net::IpAddr;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

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
    // The keys on another node's machine are not touched.
    if row.data.0.contains_key(rules::STALE_KEYS) {
        let find =
            async |mut tx| leases::taken_elsewhere(&mut tx, node.id, &hostname, &ipaddr).await;
        let taken = lease::persist(ctx, || ctx.db.read::<_, DbError, _>(find)).await?;
        if let Some(unique) = taken {
            return refuse_taken(ctx, work, node, unique, &row).await;
        }
    }
    match log_in(ctx, work, &row).await {
        Ok(()) => {}
        // The row keeps what was made, so that it can be taken down.
        Err(Entry::Stopped) => return hand_back_made(ctx, work, &row).await,
        Err(Entry::Refused(detail)) => {
            return failure::postpone_or_fail(ctx, work, &row, &detail, None).await;
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
            work.keeper.expect_again();
            return refuse_taken(ctx, work, node, unique, &row).await;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Hands one node back with what was made.
async fn hand_back_made(ctx: &Ctx, work: &Job<'_>, node: &NodeRow) -> Result<(), DbError> {
    tracing::info!(node.id, "provisioning was stopped; handing the node back");
    let made = Change {
        lease: Some(work.keeper.lease()),
        pause: Some(Duration::ZERO),
        data: Some(&node.data),
        hostname: node.hostname.as_deref(),
        ipaddr: node.ipaddr.as_deref(),
        ..Change::default()
    };
    work.keeper.expect_fewer(1);
    let write = async |mut tx| {
        let back = transitions::apply_to(&mut tx, Transition::HandBack, node, &made).await?;
        if back.is_none() {
            transitions::apply(&mut tx, Transition::KeepMade, &[node.id], &made).await?;
        }
        Ok(())
    };
    lease::persist(ctx, || ctx.db.transaction(write)).await
}

/// Ends the attempt for a node that got the name or the address of another one.
async fn refuse_taken(
    ctx: &Ctx,
    work: &Job<'_>,
    node: &NodeRow,
    unique: Unique,
    made: &NodeRow,
) -> Result<(), DbError> {
    let (what, value) = match unique {
        Unique::NodeHostname => ("hostname", &made.hostname),
        _ => ("ipaddr", &made.ipaddr),
    };
    let value = value.as_deref().unwrap_or_default();
    let detail = format!("provisioning node failed: another active node has {what} {value}");
    failure::postpone_or_fail(ctx, work, node, &detail, None).await
}

/// Why a provisioned node is not ready.
enum Entry {
    /// The worker stops.
    Stopped,
    /// The node does not let Duffy in.
    Refused(String),
}

/// The shortest and the longest pause between two logins.
const LOGIN_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Logs in to a node, which may still be booting, and removes the key of a former tenant if one may be there.
async fn log_in(ctx: &Ctx, work: &Job<'_>, node: &NodeRow) -> Result<(), Entry> {
    let has_stale_keys = node.data.0.contains_key(rules::STALE_KEYS);
    let refused = |error: &dyn std::fmt::Display| {
        let what = if has_stale_keys {
            "a former tenant's key may still be on the node"
        } else {
            "the node does not let Duffy in"
        };
        Entry::Refused(format!("provisioning node failed: {what}: {error}"))
    };
    let target = ssh_target(node).ok_or_else(|| refused(&"it has no address"))?;
    let within = ctx.config.ssh.ready_timeout;
    let deadline = Instant::now() + within;
    let mut pause = LOGIN_PAUSE.0;
    loop {
        // This process may have been stopped for longer than the lease.
        if has_stale_keys && !work.keeper.is_fresh() {
            return Err(refused(&"the lease is lost"));
        }
        let attempt = async {
            if has_stale_keys {
                ctx.ssh.remove_keys(&target).await
            } else {
                ctx.ssh.log_in(&target, true).await
            }
        };
        let attempt = work.stop.run_until_cancelled(timeout_at(deadline, attempt));
        let error = match attempt.await.ok_or(Entry::Stopped)? {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => return Err(refused(&format_args!("no login within {within:?}"))),
        };
        if error.is_own_fault() || Instant::now() + pause >= deadline {
            return Err(refused(&error));
        }
        let (id, again_in) = (node.id, pause);
        tracing::debug!(node.id = id, ?again_in, %error, "the node is not ready yet");
        let waited = work.stop.run_until_cancelled(tokio::time::sleep(pause));
        waited.await.ok_or(Entry::Stopped)?;
        pause = (pause * 2).min(LOGIN_PAUSE.1);
    }
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
        let taken = leases::taken_elsewhere(&mut tx, node.id, hostname, ipaddr).await?;
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
