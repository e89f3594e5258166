//! The `tenants` table.

use super::dialect::{run, statements};
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

statements! {
    FIND_TENANT = [
        "SELECT " tenant_columns " FROM tenants WHERE id = $1"
    ];
    FIND_TENANT_BY_NAME = [
        "SELECT " tenant_columns " FROM tenants WHERE name = $1"
    ];
    LIST_TENANTS = [
        "SELECT " tenant_columns " FROM tenants WHERE CAST($1 AS BIGINT) IS NULL OR id = $1 ORDER BY id"
    ];
    LOCK_TENANT = [
        "SELECT " tenant_columns " FROM tenants WHERE id = $1" for_no_key_update
    ];
    INSERT_TENANT = [
        "INSERT INTO tenants (name, is_admin, ssh_key, api_key, node_quota, session_lifetime, \
         session_lifetime_max, api_key_digest, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, " now ") \
         RETURNING " tenant_columns
    ];
    UPDATE_TENANT = [
        "UPDATE tenants SET ssh_key = $2, api_key = $3, node_quota = $4, session_lifetime = $5, \
         session_lifetime_max = $6, api_key_digest = $7 WHERE id = $1"
    ];
    /// Only with the hash that it belongs to.
    SET_DIGEST = [
        "UPDATE tenants SET api_key_digest = $3 WHERE id = $1 AND api_key = $2"
    ];
    RETIRE_TENANT = [
        "UPDATE tenants SET retired_at = " now " WHERE id = $1 RETURNING " tenant_columns
    ];
    UNRETIRE_TENANT = [
        "UPDATE tenants SET retired_at = NULL WHERE id = $1 RETURNING " tenant_columns
    ];
    /// Their sessions end with the next look for expired ones.
    EXPIRE_SESSIONS_OF_TENANT = [
        "UPDATE sessions SET expires_at = " now " WHERE tenant_id = $1 AND retired_at IS NULL"
    ];
}

/// The tenant of this name, retired ones too.
pub async fn find_tenant_by_name(db: &Db, name: &str) -> Result<Option<TenantRow>, DbError> {
    db.read(|mut tx| async move {
        let row = run!(
            tx,
            FIND_TENANT_BY_NAME,
            query_as::<TenantRow>,
            fetch_optional,
            name
        )?;
        Ok((tx, row))
    })
    .await
}

/// The tenant of this number, retired ones too.
pub async fn find_tenant(tx: &mut Tx, id: i64) -> Result<Option<TenantRow>, DbError> {
    run!(tx, FIND_TENANT, query_as::<TenantRow>, fetch_optional, id)
}

/// All tenants, retired ones too, or `only` this one.
pub async fn list_tenants(tx: &mut Tx, only: Option<i64>) -> Result<Vec<TenantRow>, DbError> {
    run!(tx, LIST_TENANTS, query_as::<TenantRow>, fetch_all, only)
}

/// The tenant of this number, which no other transaction changes, or counts the nodes of,
/// until this one ends.
pub async fn lock_tenant(tx: &mut Tx, id: i64) -> Result<Option<TenantRow>, DbError> {
    run!(tx, LOCK_TENANT, query_as::<TenantRow>, fetch_optional, id)
}

/// Adds a tenant.
pub async fn insert_tenant(tx: &mut Tx, tenant: &NewTenant) -> Result<TenantRow, DbError> {
    run!(
        tx,
        INSERT_TENANT,
        query_as::<TenantRow>,
        fetch_optional,
        &tenant.name,
        tenant.is_admin,
        &tenant.ssh_key,
        &tenant.api_key.hash,
        tenant.node_quota,
        tenant.session_lifetime,
        tenant.session_lifetime_max,
        &tenant.api_key.digest,
    )?
    .ok_or_else(|| DbError::Corrupt("an inserted tenant was not returned".into()))
}

/// Writes what of a tenant can change.
pub async fn update_tenant(tx: &mut Tx, tenant: &TenantRow) -> Result<(), DbError> {
    run!(
        tx,
        UPDATE_TENANT,
        query,
        execute,
        tenant.id,
        &tenant.ssh_key,
        &tenant.api_key,
        tenant.node_quota,
        tenant.session_lifetime,
        tenant.session_lifetime_max,
        &tenant.api_key_digest,
    )?;
    Ok(())
}

/// Stores the digest of a tenant's key. False when the key's hash is another one by now.
pub async fn set_digest(tx: &mut Tx, id: i64, hash: &str, digest: &str) -> Result<bool, DbError> {
    Ok(run!(tx, SET_DIGEST, query, execute, id, hash, digest)? == 1)
}

/// Retires a tenant, or takes it back. A retired tenant's sessions expire.
pub async fn set_tenant_active(
    tx: &mut Tx,
    id: i64,
    active: bool,
) -> Result<Option<TenantRow>, DbError> {
    if active {
        return run!(
            tx,
            UNRETIRE_TENANT,
            query_as::<TenantRow>,
            fetch_optional,
            id
        );
    }
    run!(tx, EXPIRE_SESSIONS_OF_TENANT, query, execute, id)?;
    run!(tx, RETIRE_TENANT, query_as::<TenantRow>, fetch_optional, id)
}
