//! What the commands ask of the server's crate, as calls that block.

#[cfg(feature = "admin")]
use duffy_api::{Tenant, TenantCreate, TenantCreated, TenantUpdate, TenantUpdated};

#[cfg(feature = "admin")]
use duffy_server::actor::{acting, operator};
use duffy_server::context::open_database;
#[cfg(feature = "admin")]
use duffy_server::context::{Context, Ctx};
use duffy_server::credentials::Credentials;
#[cfg(feature = "admin")]
use duffy_server::db::tenants::find_tenant_by_name;
use duffy_server::db::{Db, migrate};
#[cfg(feature = "admin")]
use duffy_server::lifecycle::{tenants, views};
#[cfg(feature = "admin")]
use secrecy::SecretString;
use tokio::runtime::Runtime;

#[cfg(feature = "admin")]
use super::old_dump::OldTenant;
use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;

/// Why a tenant was not created or changed.
#[cfg(feature = "admin")]
#[derive(Debug, PartialEq, Eq)]
pub enum TenantFailure {
    /// For a reason of the tenant's.
    Refused(String),
    /// Nothing can be done at all.
    Failed(Failure),
}

/// The tenants in the database.
#[cfg(feature = "admin")]
pub trait Tenants {
    /// All of them, retired ones too.
    fn list(&self) -> Result<Vec<Tenant>, Failure>;
    /// The number of the tenant of this name.
    fn find(&self, name: &str) -> Result<Option<i64>, Failure>;
    /// Adds one.
    fn create(&self, tenant: TenantCreate) -> Result<TenantCreated, TenantFailure>;
    /// Changes one.
    fn update(&self, id: i64, update: TenantUpdate) -> Result<TenantUpdated, TenantFailure>;
    /// Adds these, all or none of them, but for those whose names are taken: tells these. `dry_run` writes nothing.
    fn import(&self, tenants: &[OldTenant], dry_run: bool) -> Result<Vec<String>, TenantFailure>;
    /// Retires one, or takes it back.
    fn set_active(&self, id: i64, active: bool) -> Result<TenantUpdated, TenantFailure>;
}

/// The tables of the database.
pub trait Schema {
    /// Makes them. With test data: names and keys of its tenants.
    fn setup(&self, test_data: bool) -> Result<Vec<(String, String)>, Failure>;
    /// Their version, with ` (head)` behind the newest.
    fn current(&self) -> Result<Option<String>, Failure>;
    /// Upgrades them. The version reached; `None` when there was nothing to do.
    fn upgrade(&self, version: &str) -> Result<Option<String>, Failure>;
    /// Downgrades them. The version reached, `<base>` for none; `None` when there was nothing to do.
    fn downgrade(&self, version: &str) -> Result<Option<String>, Failure>;
}

/// The configured database, opened for each call.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    loaded: Loaded,
}

/// Prepares to call; opens nothing yet.
pub fn connect(loaded: &Loaded) -> Result<Server, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("cannot start a thread: {error}")))?;
    Ok(Server {
        runtime,
        loaded: loaded.clone(),
    })
}

impl Server {
    /// With the database, whatever its schema. `create` makes an SQLite file that is not there.
    fn with_database<T, F, Fut>(&self, create: bool, call: F) -> Result<T, Failure>
    where
        F: FnOnce(Db) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        self.runtime.block_on(async {
            let db = open_database(&self.loaded.config, create)
                .await
                .map_err(Failure::new)?;
            let result = call(db.clone()).await;
            db.close().await;
            result
        })
    }

    /// With all that the rules need, on the newest schema. What is done stands in the history as
    /// done by whoever runs the command.
    #[cfg(feature = "admin")]
    pub(super) fn with_context<T, F, Fut>(&self, call: F) -> Result<T, Failure>
    where
        F: FnOnce(Ctx) -> Fut,
        Fut: Future<Output = T>,
    {
        self.runtime.block_on(async {
            let ctx = Context::open(self.loaded.config.clone())
                .await
                .map_err(Failure::new)?;
            let result = acting(operator(&user_name()), call(ctx.clone())).await;
            ctx.db.close().await;
            Ok(result)
        })
    }
}

/// Who runs this: by the name that they logged in with, else by number.
#[cfg(feature = "admin")]
fn user_name() -> String {
    let names = ["SUDO_USER", "LOGNAME", "USER"].into_iter();
    let mut names = names.filter_map(|name| std::env::var(name).ok());
    let name = names.find(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()))
}

fn reached((from, to): (migrate::Revision, migrate::Revision)) -> Option<String> {
    (from != to).then(|| to.to_string())
}

impl Schema for Server {
    fn setup(&self, test_data: bool) -> Result<Vec<(String, String)>, Failure> {
        self.with_database(true, async |db| {
            migrate::setup_db(&db).await.map_err(Failure::new)?;
            if !test_data {
                return Ok(Vec::new());
            }
            let keys = migrate::TEST_TENANTS
                .map(|(name, ..)| (name.to_owned(), migrate::test_api_key(name).to_string()));
            let credentials = Credentials::new();
            let hash = async |key: &str| credentials.hash(key).await.map_err(Failure::new);
            let stored = [hash(&keys[0].1).await?, hash(&keys[1].1).await?];
            migrate::insert_test_data(&db, stored)
                .await
                .map_err(Failure::new)?;
            Ok(keys.to_vec())
        })
    }

    fn current(&self) -> Result<Option<String>, Failure> {
        self.with_database(false, async |db| {
            let revision = migrate::current(&db).await.map_err(Failure::new)?;
            Ok(revision.id().map(|_| revision.to_string()))
        })
    }

    fn upgrade(&self, version: &str) -> Result<Option<String>, Failure> {
        self.with_database(false, async |db| {
            migrate::upgrade(&db, version, &output::words)
                .await
                .map(reached)
                .map_err(Failure::new)
        })
    }

    fn downgrade(&self, version: &str) -> Result<Option<String>, Failure> {
        self.with_database(false, async |db| {
            migrate::downgrade(&db, version, &output::words)
                .await
                .map(reached)
                .map_err(Failure::new)
        })
    }
}

#[cfg(feature = "admin")]
impl From<tenants::TenantError> for TenantFailure {
    fn from(error: tenants::TenantError) -> Self {
        use tenants::TenantError;
        match error {
            TenantError::NotFound => TenantFailure::Refused("Not Found".to_owned()),
            TenantError::Retired { .. } | TenantError::NameTaken { .. } => {
                TenantFailure::Refused(error.to_string())
            }
            TenantError::Credentials(_) | TenantError::Db(_) => {
                TenantFailure::Failed(Failure::new(error))
            }
        }
    }
}

#[cfg(feature = "admin")]
impl Tenants for Server {
    fn list(&self) -> Result<Vec<Tenant>, Failure> {
        self.with_context(async |ctx| views::list_tenants(&ctx, None).await)?
            .map_err(Failure::new)
    }

    fn find(&self, name: &str) -> Result<Option<i64>, Failure> {
        let row = self.with_context(async |ctx| find_tenant_by_name(&ctx.db, name).await)?;
        Ok(row.map_err(Failure::new)?.map(|tenant| tenant.id))
    }

    fn create(&self, tenant: TenantCreate) -> Result<TenantCreated, TenantFailure> {
        let created = self.with_context(async |ctx| tenants::create_tenant(&ctx, tenant).await);
        Ok(created.map_err(TenantFailure::Failed)??)
    }

    fn update(&self, id: i64, update: TenantUpdate) -> Result<TenantUpdated, TenantFailure> {
        let updated = self.with_context(async |ctx| tenants::update_tenant(&ctx, id, update).await);
        Ok(updated.map_err(TenantFailure::Failed)??)
    }

    fn import(&self, old: &[OldTenant], dry_run: bool) -> Result<Vec<String>, TenantFailure> {
        let all = old.iter().map(|tenant| tenants::ImportedTenant {
            name: tenant.name.clone(),
            ssh_key: tenant.ssh_key.clone(),
            api_key: SecretString::from(tenant.api_key.clone()),
        });
        let all: Vec<_> = all.collect();
        let done =
            self.with_context(async |ctx| tenants::import_tenants(&ctx, &all, dry_run).await);
        Ok(done.map_err(TenantFailure::Failed)??)
    }

    fn set_active(&self, id: i64, active: bool) -> Result<TenantUpdated, TenantFailure> {
        let set = self.with_context(async |ctx| tenants::set_tenant_active(&ctx, id, active).await);
        Ok(set.map_err(TenantFailure::Failed)??)
    }
}
