//! The database. All SQL is in its files, in free functions on a transaction.
//!
//! PostgreSQL is the distributed engine; SQLite serves one host. `dialect` has the differences of their SQL.

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
pub mod probes;
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

/// A database, and the wake-ups of those who wait for work in it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pools: Arc<Pools>,
    share: Share,
    deadlines: Deadlines,
    /// Wakes the waiting workers of this process.
    local_wake_ups: watch::Sender<()>,
}

/// Deadlines of the parts of a transaction. The database server's timeouts are shorter: these are for a server that
/// stops responding.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For BEGIN, once there is a connection.
    pub begin: Duration,
    /// For everything after BEGIN. Migrations have no such deadline.
    pub transaction: Duration,
    /// For a read.
    pub read: Duration,
    /// How long a migration waits for the locks on the tables.
    pub migration_lock: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            // Longer than a writer of SQLite waits for another one.
            begin: Duration::from_secs(15),
            transaction: Duration::from_mins(1),
            // Longer than the server lets a statement run, shorter than a lease.
            read: Duration::from_secs(35),
            migration_lock: Duration::from_secs(5),
        }
    }
}

/// A transaction. [`Db::transaction`] commits it. If it does not, the transaction is rolled back.
#[derive(Debug)]
pub struct Tx(OwnedMutexGuard<TxState>);

#[derive(Debug)]
struct TxState {
    inner: Transaction,
    /// Whether the commit wakes the workers.
    wakes: bool,
    /// Whether a statement lost against another transaction.
    conflict: bool,
    /// Whether the connection broke at a statement.
    broken: bool,
    /// The actor that its events name.
    actor: Arc<str>,
}

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The database cannot be reached, or has no free connection. A retry may succeed.
    #[error("the database cannot be reached: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The transaction lost against other transactions, in its retries too.
    #[error("the transaction lost against other transactions, in each retry: {0}")]
    Conflict(#[source] sqlx::Error),
    /// A row like this exists already.
    #[error("a row with the same value exists ({0:?})")]
    NotUnique(Unique),
    /// A column holds a value that Duffy cannot read.
    #[error("the database holds a value that cannot be read: {0}")]
    Corrupt(String),
    /// Anything else.
    #[error("the database reports an error: {0}")]
    Refused(#[source] sqlx::Error),
}

/// A result, or the database's error.
pub type DbResult<T> = Result<T, DbError>;

impl DbError {
    /// Whether the connection broke: on another one the statement may work.
    fn is_broken_connection(&self) -> bool {
        match self {
            DbError::Unavailable(sqlx::Error::Database(cause)) => {
                dialect::ends_connection(cause.as_ref())
            }
            DbError::Unavailable(error) => {
                !matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
            }
            _ => false,
        }
    }
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

/// How often a transaction that lost against another one is retried.
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
            pools: Arc::new(Pools::new(pools)),
            share: Share::General,
            deadlines: Deadlines::default(),
            local_wake_ups: watch::Sender::new(()),
        })
    }

    /// Runs `work` in one transaction and commits it. `work` does nothing but SQL. An error rolls the transaction back.
    /// A transaction that lost against another one is retried a few times.
    ///
    /// `work` takes the transaction by value, because the compiler cannot prove that a future that borrows it is
    /// `Send`.
    pub async fn transaction<T, E, Fut>(&self, work: impl Fn(Tx) -> Fut) -> Result<T, E>
    where
        E: From<DbError>,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut attempt = 0;
        loop {
            let state = self.begin(Intent::Write).await?;
            let result = self
                .within(self.deadlines.transaction, self.run(&state, &work))
                .await;
            attempt += 1;
            if result.is_ok() || attempt > CONFLICT_RETRIES || !state.lock().await.conflict {
                return result;
            }
            tracing::debug!(attempt, "a transaction lost against another one; retrying");
            drop(state);
            let pause = rand::random_range(1..=10) * u64::from(attempt);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Runs `work`, which only reads and takes no lock. It is retried once if the connection broke.
    pub async fn read<T, E, Fut>(&self, work: impl Fn(Tx) -> Fut) -> Result<T, E>
    where
        E: From<DbError>,
        Fut: Future<Output = Result<T, E>>,
    {
        let state = self.begin(Intent::Read).await?;
        let result = self
            .within(self.deadlines.read, self.run(&state, &work))
            .await;
        if result.is_ok() || !state.lock().await.broken {
            return result;
        }
        drop(state);
        self.pools.of(self.share).discard_kept();
        let state = self.begin(Intent::Read).await?;
        self.within(self.deadlines.read, self.run(&state, &work))
            .await
    }

    /// Runs `work`, which only reads. All its statements see the data of one time.
    async fn snapshot<T, E, Fut>(&self, work: impl FnOnce(Tx) -> Fut) -> Result<T, E>
    where
        E: From<DbError>,
        Fut: Future<Output = Result<T, E>>,
    {
        let state = self.begin(Intent::Snapshot).await?;
        self.within(self.deadlines.transaction, self.run(&state, work))
            .await
    }

    /// As `transaction`, but for migrations: without deadline and retries.
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
        // Boxed, because it is large and callers nest.
        let value = Box::pin(work(Tx(Arc::clone(state).lock_owned().await))).await?;
        self.commit(Tx(Arc::clone(state).lock_owned().await))
            .await?;
        Ok(value)
    }

    /// Begins a transaction in a task of its own, which continues if the caller is cancelled. The pool would not notice
    /// a BEGIN that is cancelled half-way: the next transaction on its connection would be part of that one, and
    /// PostgreSQL's `now()` would be the time when that one began.
    async fn begin(&self, intent: Intent) -> Result<Arc<Mutex<TxState>>, DbError> {
        let place = self.pools.wait(self.share)?;
        let (pool, deadline) = (Arc::clone(self.pools.of(self.share)), self.deadlines.begin);
        let begun = tokio::spawn(async move {
            let begun = pool.begin(intent, deadline).await;
            drop(place);
            begun
        });
        // The task fails only if it panics.
        let inner = begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed));
        Ok(Arc::new(Mutex::new(TxState {
            inner: inner?,
            wakes: false,
            conflict: false,
            broken: false,
            actor: actor::current(),
        })))
    }

    async fn commit(&self, mut tx: Tx) -> Result<(), DbError> {
        let wakes = tx.0.wakes;
        if let Err(error) = tx.0.inner.commit(wakes).await {
            let error = DbError::from(error);
            tx.0.conflict |= matches!(error, DbError::Conflict(_));
            return Err(error);
        }
        if wakes {
            self.local_wake_ups.send_replace(());
        }
        Ok(())
    }

    /// Checks that the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        let ping = async |mut tx: Tx| tx.execute("SELECT 1", &[]).await;
        self.read(ping).await
    }

    /// Subscribes to wake-ups. A wake-up says that there is work; it is a hint and may be lost.
    pub fn wake_ups(&self) -> WakeUps {
        WakeUps::new(
            self.pools.general.pool.clone(),
            self.local_wake_ups.subscribe(),
        )
    }

    /// Returns the same database with the connections that clients' requests do not use: for renewing leases, and for
    /// what workers write.
    #[must_use]
    pub fn reserved(&self) -> Db {
        Db {
            share: Share::Reserved,
            ..self.clone()
        }
    }

    /// Returns the same database with other deadlines. Tests use short ones to save time.
    #[must_use]
    pub fn with_deadlines(self, deadlines: Deadlines) -> Db {
        Db { deadlines, ..self }
    }

    /// Closes all connections once they are returned to their pools. Waits for a few seconds at most.
    pub async fn close(&self) {
        self.pools.close().await;
    }

    async fn within<T, E: From<DbError>>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::time::timeout(deadline, work)
            .await
            .unwrap_or_else(|_| {
                // The other connections are probably as dead.
                self.pools.of(self.share).discard_kept();
                Err(DbError::from(sqlx::Error::PoolTimedOut).into())
            })
    }

    /// The engine's name.
    pub fn engine(&self) -> &'static str {
        match &self.pools.general.pool {
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
