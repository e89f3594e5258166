//! What every part of a running server uses.

use std::sync::Arc;

use duffy_config::{Config, Defaults};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::db::migrate::{self, MigrateError};
use crate::db::{ConnectError, Db};
use crate::nodes::ssh::{Ssh, SshError};

/// What every part of a running server uses.
#[derive(Debug, Clone)]
pub struct Context {
    /// The database.
    pub db: Db,
    /// The configuration.
    pub config: Arc<Config>,
    /// The host's clock.
    pub clock: Clock,
    /// API keys: hashing and checking.
    pub credentials: Credentials,
    /// Access to nodes.
    pub ssh: Ssh,
    /// The section `defaults` of the configuration, which a server cannot do without.
    pub defaults: Defaults,
    /// Work that must end before the process does.
    pub tasks: TaskTracker,
    /// Cancelled to stop the process.
    pub stop: CancellationToken,
    /// Cancelled when running work has no time left to end, and must be undone.
    pub halt: CancellationToken,
}

/// Shared by all tasks.
pub type Ctx = Arc<Context>;

/// Why a server or an administrator's command cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A required section is missing.
    #[error("the configuration has no section `{section}`; {remedy}")]
    MissingSection {
        /// Its name.
        section: &'static str,
        /// What to write there.
        remedy: &'static str,
    },
    /// The configuration is wrong for this use.
    #[error(transparent)]
    Config(#[from] duffy_config::ConfigError),
    /// The database cannot be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Its schema is missing or of another version.
    #[error(transparent)]
    Schema(#[from] MigrateError),
    /// SSH cannot be set up.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

/// Opens the database that the configuration names, with any schema.
pub async fn open_database(config: &Config, create: bool) -> Result<Db, StartError> {
    let database = config.database.as_ref().ok_or(StartError::MissingSection {
        section: "database",
        remedy: "set database.sqlalchemy.sync_url and async_url",
    })?;
    Ok(Db::open(database.url()?, database.pool_size, create).await?)
}

impl Context {
    /// Opens the database and checks that its schema is the newest.
    pub async fn open(config: Arc<Config>) -> Result<Ctx, StartError> {
        let db = open_database(&config, false).await?;
        migrate::check(&db).await?;
        Self::with_database(config, db, Credentials::new())
    }

    /// Uses a database that is open and has the newest schema.
    pub fn with_database(
        config: Arc<Config>,
        db: Db,
        credentials: Credentials,
    ) -> Result<Ctx, StartError> {
        let defaults = config.defaults.as_ref().ok_or(StartError::MissingSection {
            section: "defaults",
            remedy: "set defaults.session-lifetime, session-lifetime-max and node-quota",
        })?;
        Ok(Arc::new(Self {
            defaults: defaults.clone(),
            ssh: Ssh::new(config.ssh.clone())?,
            db,
            clock: Clock,
            credentials,
            config,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            halt: CancellationToken::new(),
        }))
    }

    /// The same with the database's reserved connections, for work that must not wait for requests of clients.
    #[must_use]
    pub fn reserved(&self) -> Ctx {
        Arc::new(Self {
            db: self.db.reserved(),
            ..self.clone()
        })
    }
}
