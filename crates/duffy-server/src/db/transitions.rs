//! Writes transitions of nodes: the row, the history and the wake-up in one transaction. No other statement writes a
//! node's state.

use std::time::Duration;

use duffy_api::NodeState;
use serde::Serialize;

use super::events::{self, Event};
use super::nodes::NodeRow;
use super::query::Statement;
use super::sessions::{self, NewNodes, SessionRow};
use super::{DbError, DbResult, JsonObject, Tx};
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
    /// Whether the rows that are given have the nodes' new data.
    pub data_of_rows: bool,
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
    let nodes = std::slice::from_ref(node);
    let moved = apply_to_each(tx, transition, nodes, change).await?;
    Ok(moved.into_iter().next())
}

/// Applies a transition to those of the nodes that are still in the states of these rows, and for which its rule allows
/// it. Returns their new rows in the order of their numbers.
pub async fn apply_to_each(
    tx: &mut Tx,
    transition: Transition,
    nodes: &[NodeRow],
    change: &Change<'_>,
) -> DbResult<Vec<NodeRow>> {
    let targets = targets_of_rows(transition, nodes, change)?;
    let moved = update(tx, transition, &targets, change, Others::default()).await?;
    let old = |row: &NodeRow| nodes.iter().find(|node| node.id == row.id);
    let events = moved.iter().filter_map(|row| {
        let old = old(row)?;
        let pool = row.pool.as_ref().or(old.pool.as_ref());
        let detail = detail(transition, row, change);
        Some(event(transition, old.state.0, row.id, pool, detail, change))
    });
    let events = events.collect();
    record(tx, transition, events).await?;
    Ok(moved)
}

/// Applies a transition to those of the nodes for which its rule allows it. Returns their new rows in the order of
/// their numbers.
pub async fn apply(
    tx: &mut Tx,
    transition: Transition,
    ids: &[i64],
    change: &Change<'_>,
) -> DbResult<Vec<NodeRow>> {
    apply_from(tx, transition, transition.rule().from, ids, change).await
}

/// As [`apply`], for nodes that are in one of these states.
pub async fn apply_from(
    tx: &mut Tx,
    transition: Transition,
    states: &[NodeState],
    ids: &[i64],
    change: &Change<'_>,
) -> DbResult<Vec<NodeRow>> {
    let (mut moved, mut events) = (Vec::new(), Vec::new());
    let rule = transition.rule();
    for &from in states.iter().filter(|state| rule.from.contains(state)) {
        let each = ids.iter();
        let targets = each.map(|id| target(transition, *id, from, change.data));
        let targets: Vec<_> = targets.collect::<DbResult<_>>()?;
        let rows = update(tx, transition, &targets, change, Others::default()).await?;
        events.extend(rows.iter().map(|row| {
            let detail = detail(transition, row, change);
            event(transition, from, row.id, row.pool.as_ref(), detail, change)
        }));
        moved.extend(rows);
    }
    record(tx, transition, events).await?;
    moved.sort_by_key(|row| row.id);
    Ok(moved)
}

/// The lease of a node that was taken with `lease_each`.
pub fn lease_of_node(lease: &str, id: i64) -> String {
    format!("{lease}/{id}")
}

/// Events that belong to a transition of nodes.
#[derive(Debug, Default)]
pub struct Around {
    /// Precedes the nodes' events.
    pub before: Option<Event>,
    /// Follows them.
    pub after: Option<Event>,
}

/// Applies a transition to all of these nodes, in one round trip. Returns their new rows in the order of their numbers;
/// `None` when one of them is no longer in the state of its row, or the rule does not allow the transition: then the
/// caller must roll back. Not for `Claim` and `Repair`, whose events contain numbers of the new rows.
pub async fn apply_to_all(
    tx: &mut Tx,
    transition: Transition,
    nodes: &[NodeRow],
    change: &Change<'_>,
    around: Around,
) -> DbResult<Option<Vec<NodeRow>>> {
    apply_with(tx, transition, nodes, change, around, None).await
}

/// Reserves these nodes for the session of the change, as [`apply_to_all`] does, and adds them to the session.
pub async fn reserve(
    tx: &mut Tx,
    session: &SessionRow,
    nodes: &[NodeRow],
    change: &Change<'_>,
) -> DbResult<Option<Vec<NodeRow>>> {
    let added = sessions::new_nodes(session, nodes)?;
    let (reserve, around) = (Transition::Reserve, Around::default());
    apply_with(tx, reserve, nodes, change, around, Some(added)).await
}

async fn apply_with(
    tx: &mut Tx,
    transition: Transition,
    nodes: &[NodeRow],
    change: &Change<'_>,
    around: Around,
    added: Option<NewNodes>,
) -> DbResult<Option<Vec<NodeRow>>> {
    let mut events: Vec<Event> = around.before.into_iter().collect();
    events.extend(nodes.iter().map(|node| {
        let pool = change.pool.map(str::to_owned).or(node.pool.clone());
        let detail = change.detail.map(str::to_owned);
        event(
            transition,
            node.state.0,
            node.id,
            pool.as_ref(),
            detail,
            change,
        )
    }));
    events.extend(around.after);
    if nodes.is_empty() {
        events::record_all(tx, events).await?;
        return Ok(Some(Vec::new()));
    }
    let targets = targets_of_rows(transition, nodes, change)?;
    let events = Some(events::rows(tx, events)?);
    let others = Others { events, added };
    let moved = update(tx, transition, &targets, change, others).await?;
    if transition.rule().wakes {
        tx.wake_workers();
    }
    Ok((moved.len() == nodes.len()).then_some(moved))
}

async fn record(tx: &mut Tx, transition: Transition, events: Vec<Event>) -> DbResult<()> {
    if !events.is_empty() {
        events::record_all(tx, events).await?;
        if transition.rule().wakes {
            tx.wake_workers();
        }
    }
    Ok(())
}

/// A node, the state in which the transition is applied to it, the state after that, and its new data.
#[derive(Debug, Serialize)]
struct Target {
    id: i64,
    from: NodeState,
    to: NodeState,
    data: Option<String>,
}

fn target(
    transition: Transition,
    id: i64,
    from: NodeState,
    data: Option<&JsonObject>,
) -> DbResult<Target> {
    let to = transition.rule().to.unwrap_or(from);
    let data = data.map(JsonObject::to_text).transpose();
    let data = data.map_err(|error| DbError::Corrupt(error.to_string()))?;
    Ok(Target { id, from, to, data })
}

/// Returns the targets for which the rule allows the transition, by number.
fn targets_of_rows(
    transition: Transition,
    nodes: &[NodeRow],
    change: &Change<'_>,
) -> DbResult<Vec<Target>> {
    let is_allowed = |node: &&NodeRow| transition.rule().from.contains(&node.state.0);
    let mut allowed: Vec<_> = nodes.iter().filter(is_allowed).collect();
    allowed.sort_by_key(|node| node.id);
    let each = allowed.into_iter().map(|node| {
        let own = change.data_of_rows.then_some(&node.data);
        target(transition, node.id, node.state.0, own.or(change.data))
    });
    each.collect()
}

/// What is written together with the nodes' rows.
#[derive(Default)]
struct Others {
    events: Option<events::Rows>,
    added: Option<NewNodes>,
}

/// Writes the rows. Returns the new ones in the order of their numbers.
async fn update(
    tx: &mut Tx,
    transition: Transition,
    targets: &[Target],
    change: &Change<'_>,
    others: Others,
) -> DbResult<Vec<NodeRow>> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let rule = transition.rule();
    let pause = change.pause.filter(|_| rule.pause == Effect::Set);
    let rows =
        serde_json::to_string(targets).map_err(|error| DbError::Corrupt(error.to_string()))?;
    let count = i64::try_from(targets.len()).unwrap_or(i64::MAX);
    let events = others.events.as_ref().map(events::insert);
    let added = others.added.as_ref().map(sessions::insert_nodes);
    let others: Vec<_> = events.into_iter().chain(added).collect();
    // The statement has the names of `Effect` and `Counter`. Without LIMIT, PostgreSQL's planner overestimates the number
    // of rows and may read the whole table.
    let sql = "UPDATE nodes SET state = {as_state target.to_state}, \
        state_since = CASE WHEN target.to_state = target.from_state THEN state_since ELSE {now} END, \
        retired_at = CASE WHEN target.to_state = 'done' THEN {now} ELSE retired_at END, \
        pool = CASE WHEN target.to_state IN ('unused', 'done') THEN NULL ELSE coalesce($3, pool) END, \
        lease = CASE $4 WHEN 'Keep' THEN lease \
        WHEN 'Set' THEN CASE WHEN $19 THEN $5 || '/' || nodes.id ELSE $5 END END, \
        lease_expires_at = CASE $4 WHEN 'Keep' THEN lease_expires_at \
        WHEN 'Set' THEN {now + $6} END, \
        fence = CASE $4 WHEN 'Set' THEN {next_fence} ELSE fence END, \
        attempts = CASE $7 WHEN 'Keep' THEN attempts WHEN 'One' THEN 1 \
        WHEN 'Up' THEN attempts + 1 \
        WHEN 'Down' THEN CASE WHEN attempts > 0 THEN attempts - 1 ELSE 0 END ELSE 0 END, \
        repairs = CASE $8 WHEN 'Keep' THEN repairs WHEN 'Up' THEN repairs + 1 ELSE 0 END, \
        retry_at = CASE WHEN $9 = 'Keep' THEN retry_at ELSE {now + $10} END, \
        held_at = CASE $11 WHEN 'Keep' THEN held_at WHEN 'Set' THEN {now} END, \
        reusable = reusable AND NOT $12, data = coalesce({as_json target.new_data}, data), \
        hostname = coalesce($13, hostname), ipaddr = coalesce($14, ipaddr) \
        FROM (SELECT CAST(value ->> 'id' AS INTEGER) AS node_id, value ->> 'from' AS from_state, \
        value ->> 'to' AS to_state, value ->> 'data' AS new_data FROM {json_rows $1} LIMIT $2) \
        AS target WHERE nodes.id = target.node_id \
        AND CAST(nodes.state AS TEXT) = target.from_state \
        AND retired_at IS NULL AND (NOT $15 OR lease = $5) \
        AND (NOT $16 OR lease_expires_at IS NULL OR lease_expires_at <= {now}) \
        AND (CAST($17 AS BOOLEAN) IS NULL OR (held_at IS NOT NULL) = $17) \
        AND (CAST($18 AS BOOLEAN) IS NULL OR reusable = $18) RETURNING {node_columns}";
    let mut moved: Vec<NodeRow> = tx
        .fetch_all_with(
            Statement {
                sql,
                values: vec![
                    &rows,
                    &count,
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
                    &change.hostname,
                    &change.ipaddr,
                    &(rule.requires == LeaseCheck::Own),
                    &(rule.requires == LeaseCheck::Free),
                    &rule.held,
                    &rule.reusable,
                    &change.lease_each,
                ],
            },
            &others,
        )
        .await?;
    moved.sort_by_key(|row| row.id);
    Ok(moved)
}

fn detail(transition: Transition, row: &NodeRow, change: &Change<'_>) -> Option<String> {
    match transition {
        Transition::Claim => Some(format!("attempt {}", row.attempts)),
        Transition::Repair => Some(format!("repair {}", row.repairs)),
        _ => change.detail.map(str::to_owned),
    }
}

/// `pool` is the node's pool, or the one before a transition that clears it.
fn event(
    transition: Transition,
    from: NodeState,
    node_id: i64,
    pool: Option<&String>,
    detail: Option<String>,
    change: &Change<'_>,
) -> Event {
    let rule = transition.rule();
    Event {
        node_id: Some(node_id),
        session_id: change.session.map(|session| session.id),
        tenant_id: change.session.map(|session| session.tenant_id),
        pool: pool.cloned(),
        from: Some(from),
        to: Some(rule.to.unwrap_or(from)),
        detail,
        ..Event::new(rule.cause)
    }
}
