//! Writes transitions of nodes: the row, the history and the wake-up in one transaction. No other statement writes a
//! node's state.

use std::time::Duration;

use duffy_api::NodeState;

use super::events::{self, Event};
use super::nodes::NodeRow;
use super::sessions::SessionRow;
use super::{DbResult, JsonObject, Tx};
use crate::node_state::{Effect, LeaseCheck, Transition};

/// What a transition writes besides what its rule says. `None` leaves a value as it is, except for `pause`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// The lease that the caller has or takes.
    pub lease: Option<&'a str>,
    /// Whether each node gets a lease of its own: see [`lease_of_node`].
    pub lease_each: bool,
    /// The length of a lease that is taken.
    pub lease_length: Duration,
    /// The length of the pause, if the rule sets one; `None` is a pause without an end.
    pub pause: Option<Duration>,
    /// The node's data.
    pub data: Option<&'a JsonObject>,
    /// Its host name.
    pub hostname: Option<&'a str>,
    /// Its address.
    pub ipaddr: Option<&'a str>,
    /// The pool that takes it.
    pub pool: Option<&'a str>,
    /// The session that the events name.
    pub session: Option<&'a SessionRow>,
    /// The last lines of a playbook or of SSH, or an operator's reason.
    pub detail: Option<&'a str>,
}

/// Applies a transition to a node, if it is still in the state of this row. Returns the new row; `None` when the state
/// has changed or the rule does not allow the transition.
pub async fn apply_to(
    tx: &mut Tx,
    transition: Transition,
    node: &NodeRow,
    change: &Change<'_>,
) -> DbResult<Option<NodeRow>> {
    let pool = node.pool.as_deref();
    let moved = run(tx, transition, &[node.state.0], &[node.id], pool, change).await?;
    Ok(moved.into_iter().next())
}

/// Applies a transition to those of the nodes for which its rule allows it. Returns their new rows in the order of
/// their numbers.
pub async fn apply(
    tx: &mut Tx,
    transition: Transition,
    ids: &[i64],
    change: &Change<'_>,
) -> DbResult<Vec<NodeRow>> {
    run(tx, transition, transition.rule().from, ids, None, change).await
}

/// As [`apply`], for nodes that are in this state.
pub async fn apply_in_state(
    tx: &mut Tx,
    transition: Transition,
    state: NodeState,
    ids: &[i64],
    change: &Change<'_>,
) -> DbResult<Vec<NodeRow>> {
    run(tx, transition, &[state], ids, None, change).await
}

/// The lease of a node that was taken with `lease_each`.
pub fn lease_of_node(lease: &str, id: i64) -> String {
    format!("{lease}/{id}")
}

/// `pool` is the nodes' pool before the transition, which may clear it.
async fn run(
    tx: &mut Tx,
    transition: Transition,
    states: &[NodeState],
    ids: &[i64],
    pool: Option<&str>,
    change: &Change<'_>,
) -> DbResult<Vec<NodeRow>> {
    let rule = transition.rule();
    let mut moved = Vec::new();
    let mut events = Vec::new();
    for from in states.iter().filter(|state| rule.from.contains(state)) {
        let rows = update(tx, transition, *from, ids, change).await?;
        let event = |row| event(transition, *from, row, pool, change);
        events.extend(rows.iter().map(event));
        moved.extend(rows);
    }
    if !moved.is_empty() {
        events::record_all(tx, events).await?;
        if rule.wakes {
            tx.wake_workers();
        }
    }
    moved.sort_by_key(|row| row.id);
    Ok(moved)
}

async fn update(
    tx: &mut Tx,
    transition: Transition,
    from: NodeState,
    ids: &[i64],
    change: &Change<'_>,
) -> DbResult<Vec<NodeRow>> {
    let rule = transition.rule();
    let to = rule.to.unwrap_or(from);
    let pause = change.pause.filter(|_| rule.pause == Effect::Set);
    // The statement has the names of `Effect` and `Counter`.
    let sql = "UPDATE nodes SET state = {as_state $3}, \
        state_since = CASE WHEN $2 = $3 THEN state_since ELSE {now} END, \
        retired_at = CASE WHEN $3 = 'done' THEN {now} ELSE retired_at END, \
        pool = CASE WHEN $3 IN ('unused', 'done') THEN NULL ELSE coalesce($4, pool) END, \
        lease = CASE $5 WHEN 'Keep' THEN lease \
        WHEN 'Set' THEN CASE WHEN $21 THEN $6 || '/' || nodes.id ELSE $6 END END, \
        lease_expires_at = CASE $5 WHEN 'Keep' THEN lease_expires_at \
        WHEN 'Set' THEN {now + $7} END, \
        fence = CASE $5 WHEN 'Set' THEN {next_fence} ELSE fence END, \
        attempts = CASE $8 WHEN 'Keep' THEN attempts WHEN 'One' THEN 1 \
        WHEN 'Up' THEN attempts + 1 \
        WHEN 'Down' THEN CASE WHEN attempts > 0 THEN attempts - 1 ELSE 0 END ELSE 0 END, \
        repairs = CASE $9 WHEN 'Keep' THEN repairs WHEN 'Up' THEN repairs + 1 ELSE 0 END, \
        retry_at = CASE WHEN $10 = 'Keep' THEN retry_at ELSE {now + $11} END, \
        held_at = CASE $12 WHEN 'Keep' THEN held_at WHEN 'Set' THEN {now} END, \
        reusable = reusable AND NOT $13, data = coalesce($14, data), \
        hostname = coalesce($15, hostname), ipaddr = coalesce($16, ipaddr) \
        WHERE id {in_rows} {ids $1} {end_in_rows} AND CAST(state AS TEXT) = $2 \
        AND retired_at IS NULL AND (NOT $17 OR lease = $6) \
        AND (NOT $18 OR lease_expires_at IS NULL OR lease_expires_at <= {now}) \
        AND (CAST($19 AS BOOLEAN) IS NULL OR (held_at IS NOT NULL) = $19) \
        AND (CAST($20 AS BOOLEAN) IS NULL OR reusable = $20) RETURNING {node_columns}";
    tx.fetch_all(
        sql,
        &[
            &format!("{ids:?}"),
            &from.as_str(),
            &to.as_str(),
            &change.pool,
            &format!("{:?}", rule.lease),
            &change.lease,
            &change.lease_length.as_secs_f64(),
            &format!("{:?}", rule.attempts),
            &format!("{:?}", rule.repairs),
            &format!("{:?}", rule.pause),
            &pause.map(|pause| pause.as_secs_f64()),
            &format!("{:?}", rule.hold),
            &rule.use_up,
            &change.data,
            &change.hostname,
            &change.ipaddr,
            &(rule.requires == LeaseCheck::Own),
            &(rule.requires == LeaseCheck::Free),
            &rule.held,
            &rule.reusable,
            &change.lease_each,
        ],
    )
    .await
}

fn event(
    transition: Transition,
    from: NodeState,
    row: &NodeRow,
    pool: Option<&str>,
    change: &Change<'_>,
) -> Event {
    let detail = match transition {
        Transition::Claim => Some(format!("attempt {}", row.attempts)),
        Transition::Repair => Some(format!("repair {}", row.repairs)),
        _ => change.detail.map(str::to_owned),
    };
    Event {
        node_id: Some(row.id),
        session_id: change.session.map(|session| session.id),
        tenant_id: change.session.map(|session| session.tenant_id),
        pool: row.pool.clone().or_else(|| pool.map(str::to_owned)),
        from: Some(from),
        to: Some(row.state.0),
        detail,
        ..Event::new(transition.rule().cause)
    }
}
