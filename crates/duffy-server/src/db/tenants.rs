//! The `tenants` table.

use super::{Db, DbError, Interval, Timestamp, Tx};

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
    /// How many nodes it may hold at once, where that is not the default.
    pub node_quota: Option<i32>,
    /// How long a session lasts at first, where that is not the default.
    pub session_lifetime: Option<Interval>,
    /// How long a session can last, where that is not the default.
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

/// What is stored of an API key.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its bcrypt hash.
    pub hash: String,
    /// Its digest, bound to the hash.
    pub digest: Option<String>,
}

/// A hash without a digest, as the original stores it.
impl From<String> for StoredKey {
    fn from(hash: String) -> Self {
        Self { hash, digest: None }
    }
}

impl From<&str> for StoredKey {
    fn from(hash: &str) -> Self {
        hash.to_owned().into()
    }
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredKey").finish_non_exhaustive()
    }
}

/// What a new row is made of.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Unique name.
    pub name: String,
    /// Whether it may manage tenants and nodes, and act for others.
    pub is_admin: bool,
    /// SSH public keys, a line each.
    pub ssh_key: String,
    /// What is stored of its API key.
    pub api_key: StoredKey,
    /// How many nodes it may hold at once, where that is not the default.
    pub node_quota: Option<i32>,
    /// How long a session lasts at first, where that is not the default.
    pub session_lifetime: Option<Interval>,
    /// How long a session can last, where that is not the default.
    pub session_lifetime_max: Option<Interval>,
}

/// The tenant of this name, retired ones too.
pub async fn find_tenant_by_name(db: &Db, name: &str) -> Result<Option<TenantRow>, DbError> {
    db.read(async |mut tx| {
        let row = tx
            .query("SELECT {tenant_columns} FROM tenants WHERE name = $1")
            .bind(name)
            .fetch_optional::<TenantRow>()
            .await?;
        Ok(row)
    })
    .await
}

/// The tenant of this number, retired ones too.
pub async fn find_tenant(tx: &mut Tx, id: i64) -> Result<Option<TenantRow>, DbError> {
    tx.query("SELECT {tenant_columns} FROM tenants WHERE id = $1")
        .bind(id)
        .fetch_optional()
        .await
}

/// All tenants, retired ones too, or `only` this one.
pub async fn list_tenants(tx: &mut Tx, only: Option<i64>) -> Result<Vec<TenantRow>, DbError> {
    tx.query("SELECT {tenant_columns} FROM tenants WHERE CAST($1 AS BIGINT) IS NULL OR id = $1 ORDER BY id").bind(only).fetch_all().await
}

/// The tenant of this number, which no other transaction changes, or counts the nodes of,
/// until this one ends.
pub async fn lock_tenant(tx: &mut Tx, id: i64) -> Result<Option<TenantRow>, DbError> {
    tx.query("SELECT {tenant_columns} FROM tenants WHERE id = $1 {for_no_key_update}")
        .bind(id)
        .fetch_optional()
        .await
}

/// Adds a tenant.
pub async fn insert_tenant(tx: &mut Tx, tenant: &NewTenant) -> Result<TenantRow, DbError> {
    tx.query(
        "INSERT INTO tenants (name, is_admin, ssh_key, api_key, node_quota, session_lifetime, \
         session_lifetime_max, api_key_digest, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, {now}) \
         RETURNING {tenant_columns}",
    )
    .bind(&tenant.name)
    .bind(tenant.is_admin)
    .bind(&tenant.ssh_key)
    .bind(&tenant.api_key.hash)
    .bind(tenant.node_quota)
    .bind(tenant.session_lifetime)
    .bind(tenant.session_lifetime_max)
    .bind(&tenant.api_key.digest)
    .fetch_one()
    .await
}

/// Writes what of a tenant can change.
pub async fn update_tenant(tx: &mut Tx, tenant: &TenantRow) -> Result<(), DbError> {
    tx.query(
        "UPDATE tenants SET ssh_key = $2, api_key = $3, node_quota = $4, session_lifetime = $5, \
         session_lifetime_max = $6, api_key_digest = $7 WHERE id = $1",
    )
    .bind(tenant.id)
    .bind(&tenant.ssh_key)
    .bind(&tenant.api_key)
    .bind(tenant.node_quota)
    .bind(tenant.session_lifetime)
    .bind(tenant.session_lifetime_max)
    .bind(&tenant.api_key_digest)
    .execute()
    .await?;
    Ok(())
}

/// Stores the digest of a tenant's key. False when the key's hash is another one by now.
pub async fn set_digest(tx: &mut Tx, id: i64, hash: &str, digest: &str) -> Result<bool, DbError> {
    // Only with the hash that it belongs to.
    Ok(tx
        .query("UPDATE tenants SET api_key_digest = $3 WHERE id = $1 AND api_key = $2")
        .bind(id)
        .bind(hash)
        .bind(digest)
        .execute()
        .await?
        == 1)
}

/// Retires a tenant, or takes it back. A retired tenant's sessions expire.
pub async fn set_tenant_active(
    tx: &mut Tx,
    id: i64,
    active: bool,
) -> Result<Option<TenantRow>, DbError> {
    if active {
        return tx
            .query("UPDATE tenants SET retired_at = NULL WHERE id = $1 RETURNING {tenant_columns}")
            .bind(id)
            .fetch_optional::<TenantRow>()
            .await;
    }
    // Their sessions end with the next look for expired ones.
    tx.query("UPDATE sessions SET expires_at = {now} WHERE tenant_id = $1 AND retired_at IS NULL")
        .bind(id)
        .execute()
        .await?;
    tx.query("UPDATE tenants SET retired_at = {now} WHERE id = $1 RETURNING {tenant_columns}")
        .bind(id)
        .fetch_optional()
        .await
}
