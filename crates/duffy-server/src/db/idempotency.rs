//! The `idempotency_keys` table: the session that a request with a key led to, and the reply.

use super::{DbResult, Timestamp, Tx};

/// A key of a request.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The tenant that sent it. Different tenants may use the same key.
    pub tenant_id: i64,
    /// The key.
    pub key: String,
    /// A digest of the request.
    pub request: String,
}

/// The result of a request with a key.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct KeyRow {
    /// A digest of the request.
    pub request: String,
    /// The session that it led to.
    #[sqlx(try_from = "i32")]
    pub session_id: i64,
    /// The reply, once there is one.
    pub reply: Option<String>,
    /// When that session was retired.
    pub retired_at: Option<Timestamp>,
}

/// Finds the request of a tenant with this key.
pub async fn find_key(tx: &mut Tx, tenant_id: i64, key: &str) -> DbResult<Option<KeyRow>> {
    let sql = "SELECT idempotency_keys.request, idempotency_keys.session_id, \
        idempotency_keys.reply, sessions.retired_at FROM idempotency_keys \
        JOIN sessions ON sessions.id = idempotency_keys.session_id \
        WHERE idempotency_keys.tenant_id = $1 AND idempotency_keys.key = $2";
    tx.fetch_optional(sql, &[&tenant_id, &key]).await
}

/// Stores that a request led to this session. False when the key exists already.
pub async fn insert_key(tx: &mut Tx, new: &NewKey, session_id: i64) -> DbResult<bool> {
    // Waits for another transaction that adds the same key. That happens when an administrator acts for two tenants at
    // the same time.
    let sql = "INSERT INTO idempotency_keys (tenant_id, key, request, session_id, created_at) \
        VALUES ($1, $2, $3, $4, {now}) ON CONFLICT (tenant_id, key) DO NOTHING";
    tx.changes(sql, &[&new.tenant_id, &new.key, &new.request, &session_id])
        .await
}

/// Moves a key whose session ended without a reply to another session. False when another request did so first.
pub async fn take_key_over(
    tx: &mut Tx,
    key: &NewKey,
    from: i64,
    session_id: i64,
) -> DbResult<bool> {
    let sql = "UPDATE idempotency_keys SET session_id = $4, fetched = FALSE, created_at = {now} \
        WHERE tenant_id = $1 AND key = $2 AND session_id = $3 AND reply IS NULL";
    tx.changes(sql, &[&key.tenant_id, &key.key, &from, &session_id])
        .await
}

/// Stores the reply, once.
pub async fn write_reply(tx: &mut Tx, session_id: i64, reply: &str) -> DbResult<()> {
    let sql = "UPDATE idempotency_keys SET reply = $2 WHERE session_id = $1 AND reply IS NULL";
    tx.execute(sql, &[&session_id, &reply]).await
}

/// Records that the reply is sent. False when the key was deleted meanwhile.
pub async fn mark_fetched(
    tx: &mut Tx,
    tenant_id: i64,
    key: &str,
    session_id: i64,
) -> DbResult<bool> {
    let sql = "UPDATE idempotency_keys SET fetched = TRUE \
        WHERE tenant_id = $1 AND key = $2 AND session_id = $3";
    tx.changes(sql, &[&tenant_id, &key, &session_id]).await
}

/// Deletes a key whose reply no client received. False when a client received it.
pub async fn delete_unfetched(
    tx: &mut Tx,
    tenant_id: i64,
    key: &str,
    session_id: i64,
) -> DbResult<bool> {
    let sql = "DELETE FROM idempotency_keys \
        WHERE tenant_id = $1 AND key = $2 AND session_id = $3 AND NOT fetched";
    tx.changes(sql, &[&tenant_id, &key, &session_id]).await
}

/// Deletes the key of a session whose reply no client received. False when a client received it.
pub async fn delete_unfetched_of_session(tx: &mut Tx, session_id: i64) -> DbResult<bool> {
    let sql = "DELETE FROM idempotency_keys WHERE session_id = $1 AND NOT fetched";
    tx.execute(sql, &[&session_id]).await?;
    let sql = "SELECT count(*) FROM idempotency_keys WHERE session_id = $1";
    let left: i64 = tx.value(sql, &[&session_id]).await?;
    Ok(left == 0)
}

/// Deletes up to `limit` keys that are older than `seconds` and whose sessions are over. Returns how many.
pub async fn delete_old_keys(tx: &mut Tx, seconds: f64, limit: u32) -> DbResult<u64> {
    let sql = "DELETE FROM idempotency_keys WHERE (tenant_id, key) IN (\
        SELECT old.tenant_id, old.key FROM idempotency_keys AS old \
        JOIN sessions ON sessions.id = old.session_id \
        WHERE sessions.retired_at IS NOT NULL AND old.created_at < {now + $1} LIMIT $2)";
    tx.count_changes(sql, &[&-seconds, &i64::from(limit)]).await
}
