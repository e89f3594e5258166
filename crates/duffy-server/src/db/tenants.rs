//! The `tenants` table.

use duffy_api::TenantCreate;

use super::{Db, DbResult, Interval, Timestamp, Tx};

/// A tenant's row.
#[derive(Clone, sqlx::FromRow)]
pub struct TenantRow {
    /// Number of the tenant.
    #[sqlx(try_from = "i32")]
    pub id: i64,
    /// Unique name.
    pub name: String,
    /// Whether it may manage tenants and nodes, and act for others.
    pub is_admin: bool,
    /// SSH public keys, a line each.
    pub ssh_key: String,
    /// The bcrypt hash of its API key.
    pub api_key: String,
    /// The digest of its API key, which may be that of an earlier one.
    pub api_key_digest: Option<String>,
    /// How many nodes it may hold, if that is not the default.
    pub node_quota: Option<i32>,
    /// How long a session lasts at first, if that is not the default.
    pub session_lifetime: Option<Interval>,
    /// How long a session can last, if that is not the default.
    pub session_lifetime_max: Option<Interval>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was retired.
    pub retired_at: Option<Timestamp>,
}

impl std::fmt::Debug for TenantRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantRow")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The stored form of an API key.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its bcrypt hash.
    pub hash: String,
    /// Its digest, bound to the hash.
    pub digest: Option<String>,
}

/// A hash without a digest, as the original stores it.
impl From<&str> for StoredKey {
    fn from(hash: &str) -> Self {
        Self {
            hash: hash.to_owned(),
            digest: None,
        }
    }
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredKey").finish_non_exhaustive()
    }
}

/// Finds a tenant by its name, retired ones too.
pub async fn find_tenant_by_name(db: &Db, name: &str) -> DbResult<Option<TenantRow>> {
    let text = "SELECT {tenant_columns} FROM tenants WHERE name = $1";
    let find = async |mut tx: Tx| tx.fetch_optional(text, &[&name]).await;
    db.read(find).await
}

/// Finds a tenant by its number, retired ones too.
pub async fn find_tenant(tx: &mut Tx, id: i64) -> DbResult<Option<TenantRow>> {
    tx.fetch_optional("SELECT {tenant_columns} FROM tenants WHERE id = $1", &[&id])
        .await
}

/// Lists all tenants, retired ones too, or `only` this one.
pub async fn list_tenants(tx: &mut Tx, only: Option<i64>) -> DbResult<Vec<TenantRow>> {
    let sql = "SELECT {tenant_columns} FROM tenants WHERE CAST($1 AS BIGINT) IS NULL \
        OR id = $1 ORDER BY id";
    tx.fetch_all(sql, &[&only]).await
}

/// Locks a tenant, so that no other transaction changes it or checks its quota until this one ends.
pub async fn lock_tenant(tx: &mut Tx, id: i64) -> DbResult<Option<TenantRow>> {
    let sql = "SELECT {tenant_columns} FROM tenants WHERE id = $1 {for_no_key_update}";
    tx.fetch_optional(sql, &[&id]).await
}

/// A quota as the column holds it. Validation refuses larger numbers.
pub(crate) fn quota_column(quota: i64) -> i32 {
    i32::try_from(quota).unwrap_or(i32::MAX)
}

/// Adds a tenant.
pub async fn insert_tenant(
    tx: &mut Tx,
    tenant: &TenantCreate,
    key: &StoredKey,
) -> DbResult<TenantRow> {
    let sql = "INSERT INTO tenants (name, is_admin, ssh_key, api_key, node_quota, \
        session_lifetime, session_lifetime_max, api_key_digest, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, {now}) \
        RETURNING {tenant_columns}";
    tx.fetch_one(
        sql,
        &[
            &tenant.name,
            &tenant.is_admin,
            &tenant.ssh_key,
            &key.hash,
            &tenant.node_quota.map(quota_column),
            &tenant.session_lifetime.map(Interval),
            &tenant.session_lifetime_max.map(Interval),
            &key.digest,
        ],
    )
    .await
}

/// Writes the columns of a tenant that can change.
pub async fn update_tenant(tx: &mut Tx, tenant: &TenantRow) -> DbResult<()> {
    let sql = "UPDATE tenants SET ssh_key = $2, api_key = $3, node_quota = $4, \
        session_lifetime = $5, session_lifetime_max = $6, api_key_digest = $7 WHERE id = $1";
    tx.execute(
        sql,
        &[
            &tenant.id,
            &tenant.ssh_key,
            &tenant.api_key,
            &tenant.node_quota,
            &tenant.session_lifetime,
            &tenant.session_lifetime_max,
            &tenant.api_key_digest,
        ],
    )
    .await
}

/// Stores the digest of a tenant's key. False when the key has changed meanwhile.
pub async fn set_digest(tx: &mut Tx, id: i64, hash: &str, digest: &str) -> DbResult<bool> {
    // The digest belongs to this hash.
    let sql = "UPDATE tenants SET api_key_digest = $3 WHERE id = $1 AND api_key = $2";
    tx.changes(sql, &[&id, &hash, &digest]).await
}

/// Retires or reactivates a tenant. A retired tenant's sessions expire.
pub async fn set_tenant_active(tx: &mut Tx, id: i64, active: bool) -> DbResult<Option<TenantRow>> {
    // The sessions end when a worker next looks for expired ones.
    let sql = "UPDATE sessions SET expires_at = {now} \
        WHERE tenant_id = $1 AND retired_at IS NULL AND NOT $2";
    tx.execute(sql, &[&id, &active]).await?;
    let sql = "UPDATE tenants SET retired_at = CASE WHEN $2 THEN NULL ELSE {now} END \
        WHERE id = $1 RETURNING {tenant_columns}";
    tx.fetch_optional(sql, &[&id, &active]).await
}
