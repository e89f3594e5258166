//! Creates, changes and retires tenants.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};
use secrecy::{ExposeSecret, SecretString};

use crate::context::Ctx;
use crate::credentials::CredentialsError;
use crate::db::tenants::{self, StoredKey, TenantRow, quota_column};
use crate::db::{DbError, Interval, Tx, Unique};
use crate::lifecycle::views;
use duffy_api::{ApiKeyUpdate, HIDDEN, TenantCreate, TenantCreated, TenantUpdate, TenantUpdated};

/// Why a tenant was not created or changed.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// There is no such tenant.
    #[error("there is no such tenant")]
    NotFound,
    /// Only active tenants can be changed.
    #[error("tenant {name} (id={id}) is retired")]
    Retired {
        /// Its name.
        name: String,
        /// Its number.
        id: i64,
    },
    /// Names are unique, retired tenants' too.
    #[error("there is a tenant named {0:?} already; names must be unique")]
    NameTaken(String),
    /// The key could not be hashed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Creates a tenant with a new API key, which is shown in the result and never again.
pub async fn create_tenant(ctx: &Ctx, create: TenantCreate) -> Result<TenantCreated, TenantError> {
    let key = uuid::Uuid::new_v4().to_string();
    let (stored, tenant) = (&ctx.credentials.hash(&key).await?, &create);
    let write = async |mut tx| insert(&mut tx, tenant, stored).await;
    let row = ctx.db.transaction(write).await?;
    tracing::info!(tenant.id = row.id, tenant.name = row.name, "tenant created");
    let mut view = views::tenant(ctx, &row);
    view.ssh_key = row.ssh_key;
    Ok(TenantCreated::new(view, key))
}

/// A tenant of another Duffy, with its API key there.
#[derive(Debug, Clone)]
pub struct ImportedTenant {
    /// Unique name.
    pub name: String,
    /// SSH public keys, a line each.
    pub ssh_key: String,
    /// The key itself; it is stored as a hash.
    pub api_key: SecretString,
}

/// Creates these tenants, all or none. Leaves out those whose names are taken, and returns their names. A `dry_run`
/// writes nothing.
pub async fn import_tenants(
    ctx: &Ctx,
    imported: &[ImportedTenant],
    dry_run: bool,
) -> Result<Vec<String>, TenantError> {
    let list = async |mut tx| tenants::list_tenants(&mut tx, None).await;
    let rows = ctx.db.read(list).await?;
    let taken: HashSet<String> = rows.into_iter().map(|row| row.name).collect();
    let (taken, new): (Vec<_>, Vec<_>) = imported
        .iter()
        .partition(|tenant| taken.contains(&tenant.name));
    let taken = taken.into_iter().map(|tenant| tenant.name.clone());
    if dry_run {
        return Ok(taken.collect());
    }
    // `Credentials` limits how many are hashed at the same time to the number of cores.
    let rows: Vec<(TenantCreate, StoredKey)> = stream::iter(new)
        .map(async |tenant| -> Result<_, TenantError> {
            let create = TenantCreate {
                name: tenant.name.clone(),
                is_admin: false,
                ssh_key: tenant.ssh_key.clone(),
                node_quota: None,
                session_lifetime: None,
                session_lifetime_max: None,
            };
            let key = ctx.credentials.hash(tenant.api_key.expose_secret());
            Ok((create, key.await?))
        })
        .buffered(64)
        .try_collect()
        .await?;
    let rows = &rows;
    let write = async |mut tx| -> Result<_, TenantError> {
        for (tenant, key) in rows {
            insert(&mut tx, tenant, key).await?;
        }
        Ok(())
    };
    ctx.db.transaction(write).await?;
    tracing::info!(quantity = rows.len(), "tenants imported");
    Ok(taken.collect())
}

async fn insert(
    tx: &mut Tx,
    tenant: &TenantCreate,
    key: &StoredKey,
) -> Result<TenantRow, TenantError> {
    let row = tenants::insert_tenant(tx, tenant, key).await;
    row.map_err(|error| match error {
        DbError::NotUnique(Unique::TenantName) => TenantError::NameTaken(tenant.name.clone()),
        error => error.into(),
    })
}

/// Changes the members that the update names. The result shows a new API key if it was generated here.
pub async fn update_tenant(
    ctx: &Ctx,
    id: i64,
    update: TenantUpdate,
) -> Result<TenantUpdated, TenantError> {
    let (key, shown) = match &update.api_key {
        None => (None, HIDDEN.to_owned()),
        Some(ApiKeyUpdate::Set(key)) => (Some(ctx.credentials.hash(key).await?), HIDDEN.to_owned()),
        Some(ApiKeyUpdate::Reset) => {
            let key = uuid::Uuid::new_v4().to_string();
            (Some(ctx.credentials.hash(&key).await?), key)
        }
    };
    let (update, key) = (&update, &key);
    let write = async |mut tx| {
        let row = tenants::lock_tenant(&mut tx, id).await?;
        let mut row = row.ok_or(TenantError::NotFound)?;
        if row.retired_at.is_some() {
            return Err(TenantError::Retired { name: row.name, id });
        }
        if let Some(ssh_key) = &update.ssh_key {
            row.ssh_key.clone_from(ssh_key);
        }
        if let Some(key) = key {
            row.api_key.clone_from(&key.hash);
            row.api_key_digest.clone_from(&key.digest);
        }
        if let Some(quota) = update.node_quota {
            row.node_quota = quota.map(quota_column);
        }
        if let Some(lifetime) = update.session_lifetime {
            row.session_lifetime = lifetime.map(Interval);
        }
        if let Some(lifetime) = update.session_lifetime_max {
            row.session_lifetime_max = lifetime.map(Interval);
        }
        tenants::update_tenant(&mut tx, &row).await?;
        Ok(row)
    };
    let row = ctx.db.transaction(write).await?;
    tracing::info!(tenant.id = row.id, tenant.name = row.name, "tenant changed");
    Ok(TenantUpdated::new(views::tenant(ctx, &row), Some(shown)))
}

/// Retires a tenant, whose sessions then expire, or reactivates it.
pub async fn set_tenant_active(
    ctx: &Ctx,
    id: i64,
    active: bool,
) -> Result<TenantUpdated, TenantError> {
    let write = async |mut tx: Tx| {
        let row = tenants::lock_tenant(&mut tx, id).await?;
        let row = row.ok_or(TenantError::NotFound)?;
        if row.retired_at.is_some() && !active {
            return Err(TenantError::Retired { name: row.name, id });
        }
        let row = tenants::set_tenant_active(&mut tx, id, active).await?;
        let row = row.ok_or(TenantError::NotFound)?;
        tx.wake_workers();
        Ok(row)
    };
    let row = ctx.db.transaction(write).await?;
    let change = if active {
        "tenant taken back"
    } else {
        "tenant retired"
    };
    tracing::info!(tenant.id = row.id, tenant.name = row.name, "{change}");
    Ok(TenantUpdated::new(views::tenant(ctx, &row), None))
}

/// Stores the digest of a key that was verified by its hash, so that the next check is cheap. If that fails, the next
/// check tries again.
pub async fn remember_digest(ctx: &Ctx, tenant: &TenantRow, digest: &str) {
    let store =
        async |mut tx| tenants::set_digest(&mut tx, tenant.id, &tenant.api_key, digest).await;
    if let Err(error) = ctx.db.transaction(store).await {
        tracing::warn!(tenant.id, %error, "cannot store the digest of an API key");
    }
}
