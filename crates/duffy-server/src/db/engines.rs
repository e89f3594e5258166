//! The engines of this build, and why a database cannot be opened.
//!
//! Only this file asks which engines are compiled. Each engine is a module with the same items. In a build with one
//! engine both names mean its module, which refuses a URL of the other engine.

#[cfg(feature = "postgresql")]
pub(super) mod postgres;
#[cfg(not(feature = "postgresql"))]
pub(super) use sqlite as postgres;
#[cfg(feature = "sqlite")]
pub(super) mod sqlite;
#[cfg(not(feature = "sqlite"))]
pub(super) use postgres as sqlite;

use std::time::Duration;

use futures::stream::BoxStream;
use sqlx::pool::{Pool, PoolOptions};
use sqlx::{Connection, Database};

/// Wake-ups from other processes. The stream ends after an error.
pub(super) type Notifications = BoxStream<'static, Result<(), sqlx::Error>>;

/// The general pool of an engine, and the reserved one.
pub(super) type TwoPools<D> = (Pool<D>, Pool<D>);

/// How long a request for a connection may wait.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most connections of the reserved pool.
const RESERVED: u32 = 4;

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server refuses or does not answer.
    #[error(
        "cannot connect to the database {place}: {cause}; check database.sqlalchemy.sync_url, and that the server runs and lets this user in"
    )]
    Connect {
        /// Where it is, and as which user.
        place: String,
        /// What the driver says.
        cause: sqlx::Error,
    },
    /// The file does not exist.
    #[error(
        "there is no database {0}; create it with `duffy setup-db`, or correct database.sqlalchemy.sync_url"
    )]
    NoFile(String),
    /// The directory of the file does not exist.
    #[error(
        "cannot create the database {0}: its directory does not exist; create it, or correct database.sqlalchemy.sync_url"
    )]
    NoDirectory(String),
    /// This build has only the other engine.
    #[error("this build of duffy has no {engine}; install one with the feature `{feature}`")]
    NotBuiltIn {
        /// The engine's name.
        engine: &'static str,
        /// The feature that has it.
        feature: &'static str,
    },
}

/// Opens the general pool of `size` connections with one connection, so that errors come out here, and the reserved pool.
async fn open_pools<D: Database>(
    options: <D::Connection as Connection>::Options,
    size: u32,
    patience: Duration,
) -> Result<TwoPools<D>, sqlx::Error> {
    let pool = |size| {
        PoolOptions::new()
            .max_connections(size)
            .acquire_timeout(patience)
    };
    let general = pool(size).connect_with(options.clone()).await?;
    Ok((general, pool(RESERVED).connect_lazy_with(options)))
}
