//! The database: all SQL stands below here, as free functions on a transaction.
//!
//! PostgreSQL is the distributed engine; SQLite serves one host. `dialect` has what they spell differently.

#![cfg_attr(
    not(all(feature = "postgresql", feature = "sqlite")),
    expect(
        clippy::match_same_arms,
        reason = "in a build with one engine both names mean it"
    )
)]

mod connections;
pub mod dialect;
mod engines;
pub mod events;
pub mod idempotency;
pub mod leases;
pub mod migrate;
pub mod nodes;
pub mod old_events;
pub mod operators;
pub mod pools;
mod query;
pub mod sessions;
pub mod snapshot;
pub mod tenants;
pub mod transitions;
mod wake;

use std::sync::Arc;
use std::time::Duration;

pub use dialect::Unique;
pub use dialect::values::{Interval, JsonObject, Timestamp};
pub use engines::ConnectError;
pub use wake::WakeUps;

use crate::actor;
use connections::{Intent, Pool, Pools, Share, Transaction};
use duffy_config::DatabaseUrl;
use engines::{postgres, sqlite};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// A database, and who is woken when there is work in it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pools: Arc<Pools>,
    share: Share,
    deadlines: Deadlines,
    /// Wakes the waiting workers of this process.
    bell: watch::Sender<()>,
}

/// How long parts of a transaction may take. The database server's timeouts are shorter: these are for a server that
/// stops responding.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Its begin, on a connection that there is.
    pub begin: Duration,
    /// All that follows. A migration takes as long as it needs.
    pub transaction: Duration,
    /// How long a migration waits for the locks on the tables.
    pub migration_lock: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            // Longer than a writer of SQLite waits for another one.
            begin: Duration::from_secs(15),
            transaction: Duration::from_mins(1),
            migration_lock: Duration::from_secs(5),
        }
    }
}

/// A transaction. [`Db::transaction`] commits it; without that it is rolled back.
#[derive(Debug)]
pub struct Tx(OwnedMutexGuard<TxState>);

#[derive(Debug)]
struct TxState {
    inner: Transaction,
    /// Whether the commit wakes the workers.
    wakes: bool,
    /// Whether a statement lost against another transaction.
    conflict: bool,
    /// In whose name it writes.
    actor: Arc<str>,
}

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The database is not there, or has no connection to spare; later it may.
    #[error("the database cannot be reached: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The transaction lost against other transactions, also in its retries.
    #[error("other transactions were in the way, each time: {0}")]
    Conflict(#[source] sqlx::Error),
    /// A row like this exists already.
    #[error("there is such a row already ({0:?})")]
    NotUnique(Unique),
    /// What stands in a column is not what should.
    #[error("the database holds a value that cannot be read: {0}")]
    Corrupt(String),
    /// Anything else.
    #[error("the database refused: {0}")]
    Refused(#[source] sqlx::Error),
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(cause) => {
                if let Some(unique) = dialect::violated_unique(cause.as_ref()) {
                    DbError::NotUnique(unique)
                } else if dialect::is_conflict(cause.as_ref()) {
                    DbError::Conflict(error)
                } else if dialect::is_unavailable(cause.as_ref()) {
                    DbError::Unavailable(error)
                } else {
                    DbError::Refused(error)
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => DbError::Unavailable(error),
            sqlx::Error::ColumnDecode { index, source } => {
                DbError::Corrupt(format!("column {index}: {source}"))
            }
            _ => DbError::Refused(error),
        }
    }
}

/// How often a transaction is done again after it lost against another one.
const CONFLICT_RETRIES: u32 = 10;

impl Db {
    /// Opens the database and makes one connection, so that errors come out here. `pool_size` is the largest number of
    /// connections, without the reserved ones. Creates a SQLite file only when `create` says so.
    pub async fn open(url: &DatabaseUrl, pool_size: u32, create: bool) -> Result<Db, ConnectError> {
        let pools = match url {
            DatabaseUrl::Postgres(_) => {
                let (general, reserved) = postgres::open(url, pool_size, create).await?;
                (Pool::Postgres(general), Pool::Postgres(reserved))
            }
            DatabaseUrl::Sqlite { .. } => {
                let (general, reserved) = sqlite::open(url, pool_size, create).await?;
                (Pool::Sqlite(general), Pool::Sqlite(reserved))
            }
        };
        Ok(Db {
            pools: Arc::new(Pools::new(pools, pool_size)),
            share: Share::General,
            deadlines: Deadlines::default(),
            bell: watch::Sender::new(()),
        })
    }

    /// Runs `work` in one transaction and commits it. `work` does nothing but SQL. An error rolls all of it back. A
    /// transaction that lost against another one runs again, a few times.
    ///
    /// `work` gets the transaction by value: a future that borrows it would not be `Send` for the compiler.
    pub async fn transaction<T, E, Fut>(&self, work: impl Fn(Tx) -> Fut) -> Result<T, E>
    where
        E: From<DbError>,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut attempt = 0;
        loop {
            let state = self.begin(Intent::Write).await?;
            let result = self.within_deadline(self.run(&state, &work)).await;
            attempt += 1;
            if result.is_ok() || attempt > CONFLICT_RETRIES || !state.lock().await.conflict {
                return result;
            }
            tracing::debug!(
                attempt,
                "a transaction lost against another one and runs again"
            );
            drop(state);
            let pause = rand::random_range(1..=10) * u64::from(attempt);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Runs `work`, which only reads, in one transaction. It takes no lock, and does not run again.
    pub async fn read<T, E, Fut>(&self, work: impl FnOnce(Tx) -> Fut) -> Result<T, E>
    where
        E: From<DbError>,
        Fut: Future<Output = Result<T, E>>,
    {
        let state = self.begin(Intent::Read).await?;
        self.within_deadline(self.run(&state, work)).await
    }

    /// The same for migrations: without a deadline.
    async fn long_transaction<T, E, Fut>(&self, work: impl FnOnce(Tx) -> Fut) -> Result<T, E>
    where
        E: From<DbError>,
        Fut: Future<Output = Result<T, E>>,
    {
        let state = self.begin(Intent::Write).await?;
        self.run(&state, work).await
    }

    async fn run<T, E, Fut>(
        &self,
        state: &Arc<Mutex<TxState>>,
        work: impl FnOnce(Tx) -> Fut,
    ) -> Result<T, E>
    where
        E: From<DbError>,
        Fut: Future<Output = Result<T, E>>,
    {
        // Boxed, as it is large, and callers nest.
        let value = Box::pin(work(Tx(Arc::clone(state).lock_owned().await))).await?;
        self.commit(Tx(Arc::clone(state).lock_owned().await))
            .await?;
        Ok(value)
    }

    /// Begins in a task of its own, which goes on when the caller is gone. The pool does not know of a BEGIN that is
    /// given up half-way: the next transaction on its connection would be part of that one, in its time, by PostgreSQL's
    /// `now()`.
    async fn begin(&self, intent: Intent) -> Result<Arc<Mutex<TxState>>, DbError> {
        let place = self.pools.wait(self.share)?;
        let (pool, deadline) = (self.pools.of(self.share).clone(), self.deadlines.begin);
        let begun = tokio::spawn(async move {
            let begun = pool.begin(intent, deadline).await;
            drop(place);
            begun
        });
        // Only a panic keeps it from its end.
        let inner = begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed));
        Ok(Arc::new(Mutex::new(TxState {
            inner: inner?,
            wakes: false,
            conflict: false,
            actor: actor::current(),
        })))
    }

    async fn commit(&self, mut tx: Tx) -> Result<(), DbError> {
        let wakes = tx.0.wakes;
        if wakes {
            tx.execute("{notify}", &[]).await?;
        }
        if let Err(error) = tx.0.inner.commit().await {
            let error = DbError::from(error);
            tx.0.conflict |= matches!(error, DbError::Conflict(_));
            return Err(error);
        }
        if wakes {
            self.bell.send_replace(());
        }
        Ok(())
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        let ping = async |mut tx: Tx| tx.execute("SELECT 1", &[]).await;
        self.read(ping).await
    }

    /// Wake-ups, which say that there is work. A wake-up is a hint and may be lost.
    pub fn wake_ups(&self) -> WakeUps {
        WakeUps::new(self.pools.general.clone(), self.bell.subscribe())
    }

    /// The same database by connections that clients' requests do not use: for the renewal of leases, and for what
    /// workers write.
    #[must_use]
    pub fn reserved(&self) -> Db {
        Db {
            share: Share::Reserved,
            ..self.clone()
        }
    }

    /// With other deadlines: for tests, where short ones save time.
    #[must_use]
    pub fn with_deadlines(self, deadlines: Deadlines) -> Db {
        Db { deadlines, ..self }
    }

    /// Closes all connections, after those in use are given back; a few seconds at most.
    pub async fn close(&self) {
        self.pools.close().await;
    }

    async fn within_deadline<T, E: From<DbError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.deadlines.transaction, work).await {
            Ok(result) => result,
            Err(_) => Err(DbError::from(sqlx::Error::PoolTimedOut).into()),
        }
    }

    /// The engine's name.
    pub fn engine(&self) -> &'static str {
        match &self.pools.general {
            Pool::Postgres(_) => "PostgreSQL",
            Pool::Sqlite(_) => "SQLite",
        }
    }
}

impl Tx {
    /// Wakes the workers once this is committed.
    pub fn wake_workers(&mut self) {
        self.0.wakes = true;
    }
}
