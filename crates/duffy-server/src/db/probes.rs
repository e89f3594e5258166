//! Probes: which ready nodes sessions take next, and which ones Duffy has not reached for a while.

use std::time::Duration;

use super::nodes::NodeRow;
use super::{DbResult, Tx};

/// Lists up to `limit` ready nodes: first the one of each pool that a session takes next, then the second of each pool,
/// and so on.
pub async fn list_next_lent(tx: &mut Tx, limit: u32) -> DbResult<Vec<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes JOIN (SELECT id, row_number() OVER (PARTITION BY \
        pool ORDER BY state_since NULLS FIRST, id) AS place FROM nodes WHERE {lendable}) AS next \
        ON next.id = nodes.id ORDER BY next.place, nodes.id LIMIT $1";
    tx.fetch_all(sql, &[&i64::from(limit)]).await
}

/// Lists up to `limit` ready nodes that were neither probed nor became ready within this time, the longest ago first.
pub async fn list_due(tx: &mut Tx, interval: Duration, limit: u32) -> DbResult<Vec<i64>> {
    let sql = "SELECT id FROM nodes WHERE {lendable} \
        AND coalesce(state_since <= {now + $1}, TRUE) AND coalesce(probed_at <= {now + $1}, TRUE) \
        ORDER BY probed_at NULLS FIRST, id LIMIT $2";
    tx.ids(sql, &[&-interval.as_secs_f64(), &i64::from(limit)])
        .await
}

/// Notes that those of these nodes are being probed that are still due. Returns them. Another process then leaves them
/// alone.
pub async fn claim_due(tx: &mut Tx, interval: Duration, ids: &[i64]) -> DbResult<Vec<NodeRow>> {
    let sql = "UPDATE nodes SET probed_at = {now} WHERE id IN ({ids $1}) AND {lendable} \
        AND coalesce(probed_at <= {now + $2}, TRUE) RETURNING {node_columns}";
    let ids = serde_json::json!(ids).to_string();
    tx.fetch_all(sql, &[&ids, &-interval.as_secs_f64()]).await
}

/// Counts the ready nodes except these.
pub async fn count_others(tx: &mut Tx, except: &[i64]) -> DbResult<i64> {
    let sql = "SELECT count(*) FROM nodes WHERE {lendable} AND id NOT IN ({ids $1})";
    tx.value(sql, &[&serde_json::json!(except).to_string()])
        .await
}

/// Lists up to `limit` ready nodes at random, except these.
pub async fn list_others(tx: &mut Tx, except: &[i64], limit: u32) -> DbResult<Vec<NodeRow>> {
    let sql = "SELECT {node_columns} FROM nodes WHERE {lendable} AND id NOT IN ({ids $1}) \
        ORDER BY random() LIMIT $2";
    let except = serde_json::json!(except).to_string();
    tx.fetch_all(sql, &[&except, &i64::from(limit)]).await
}
