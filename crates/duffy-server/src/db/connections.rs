//! Connections to the database: two pools, and the transactions on their connections.
//!
//! Requests of clients must not keep leases from being renewed. The renewals, and the writes of workers, therefore have
//! a pool of their own. Everything else uses the general pool, where the number of waiting transactions is limited.
//!
//! sqlx checks a connection when it leaves its pool and when it returns: two round trips more for each transaction. So a
//! connection whose transaction has ended well is kept here for a moment, and used again without a check.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Executor;
use sqlx::pool::PoolConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::engines::{postgres, sqlite};

/// How many transactions may wait for each connection of the general pool. The longest wait is ten seconds: if
/// transactions take 150 ms or more, further ones would wait in vain.
const WAITING_PER_CONNECTION: usize = 64;
/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(5);
/// How long a connection may take to roll back, and to answer before it is used again.
const CLEAN_UP: Duration = Duration::from_secs(5);
/// How long a connection is kept without use before it returns to sqlx's pool. A server that vanished is noticed there.
const KEEP: Duration = Duration::from_secs(1);
/// How long a connection is kept in all. Then sqlx's pool checks it and its age.
const KEEP_AT_MOST: Duration = Duration::from_mins(1);

/// Does the same with the value of either engine.
macro_rules! either {
    ($type:ident, $value:expr, $own:pat => $work:expr) => {
        match $value {
            $type::Postgres($own) => $work,
            $type::Sqlite($own) => $work,
        }
    };
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Intent {
    /// On PostgreSQL each statement sees the data of its own time.
    Read,
    /// All statements see the data of the time of the first one.
    Snapshot,
    Write,
}

/// Which pool a transaction takes its connection from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    General,
    Reserved,
}

/// Both pools.
#[derive(Debug)]
pub(super) struct Pools {
    pub(super) general: Arc<ConnectionPool>,
    reserved: Arc<ConnectionPool>,
    waiting: Arc<Semaphore>,
}

impl Pools {
    pub(super) fn new((general, reserved): (Pool, Pool)) -> Self {
        let general = ConnectionPool::new(general);
        let waiting = WAITING_PER_CONNECTION.saturating_mul(general.free.available_permits());
        Self {
            general,
            reserved: ConnectionPool::new(reserved),
            waiting: Arc::new(Semaphore::new(waiting.min(Semaphore::MAX_PERMITS))),
        }
    }

    pub(super) fn of(&self, share: Share) -> &Arc<ConnectionPool> {
        match share {
            Share::General => &self.general,
            Share::Reserved => &self.reserved,
        }
    }

    /// Returns a permit to wait for a connection; an error when too many transactions wait.
    pub(super) fn wait(&self, share: Share) -> Result<Option<OwnedSemaphorePermit>, sqlx::Error> {
        if share == Share::Reserved {
            return Ok(None);
        }
        let permit = Arc::clone(&self.waiting).try_acquire_owned();
        permit.map(Some).map_err(|_| {
            let text = "too many transactions wait for a connection";
            io::Error::new(io::ErrorKind::ResourceBusy, text).into()
        })
    }

    /// Closes all connections once their transactions have ended. Waits for a few seconds at most.
    pub(super) async fn close(&self) {
        let closed = async { tokio::join!(self.general.close(), self.reserved.close()) };
        if tokio::time::timeout(CLOSE, closed).await.is_err() {
            tracing::warn!("connections to the database did not close");
        }
    }
}

/// sqlx's pool of one engine.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Postgres(sqlx::Pool<postgres::Driver>),
    Sqlite(sqlx::Pool<sqlite::Driver>),
}

impl Pool {
    async fn acquire(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Pool::Postgres(pool) => pool.acquire().await.map(Connection::Postgres),
            Pool::Sqlite(pool) => pool.acquire().await.map(Connection::Sqlite),
        }
    }
}

/// A pool of connections, which keeps some for the next transaction.
#[derive(Debug)]
pub(super) struct ConnectionPool {
    pub(super) pool: Pool,
    /// A permit for each connection that no transaction uses.
    free: Arc<Semaphore>,
    kept: Mutex<Kept>,
}

/// The kept connections: none is in a transaction.
#[derive(Debug, Default)]
struct Kept {
    /// With the time of their last use, the latest last.
    connections: Vec<(Taken, Instant)>,
    /// Whether a task returns them to sqlx's pool.
    returning: bool,
}

/// A connection from sqlx's pool.
#[derive(Debug)]
struct Taken {
    connection: Connection,
    since: Instant,
}

impl ConnectionPool {
    fn new(pool: Pool) -> Arc<Self> {
        let size = either!(Pool, &pool, own => own.options().get_max_connections());
        Arc::new(Self {
            pool,
            free: Arc::new(Semaphore::new(size as usize)),
            kept: Mutex::default(),
        })
    }

    /// Waits for a connection, and begins a transaction on it within the deadline.
    pub(super) async fn begin(
        self: &Arc<Self>,
        intent: Intent,
        deadline: Duration,
    ) -> Result<Transaction, sqlx::Error> {
        let patience = either!(Pool, &self.pool, own => own.options().get_acquire_timeout());
        let until = Instant::now() + patience;
        let free = tokio::time::timeout_at(until, Arc::clone(&self.free).acquire_owned()).await;
        let free = free.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let free = free.map_err(|_| sqlx::Error::PoolClosed)?;
        let kept = self.begin_on_kept(intent, deadline).await?;
        let taken = if let Some(taken) = kept {
            taken
        } else {
            let acquired = tokio::time::timeout_at(until, self.pool.acquire()).await;
            let mut connection = acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
            connection.begin(intent, deadline).await?;
            Taken {
                connection,
                since: Instant::now(),
            }
        };
        Ok(Transaction {
            open: taken.connection.begin_statement(intent).is_some(),
            held: Some((taken, free)),
            pool: Arc::clone(self),
        })
    }

    /// Begins a transaction on a kept connection. `None` if there is none, or if it is broken.
    async fn begin_on_kept(
        &self,
        intent: Intent,
        deadline: Duration,
    ) -> Result<Option<Taken>, sqlx::Error> {
        let Some((mut taken, _)) = self.lock().connections.pop() else {
            return Ok(None);
        };
        let Err(error) = taken.connection.begin(intent, deadline).await else {
            return Ok(Some(taken));
        };
        if matches!(error, sqlx::Error::PoolTimedOut) {
            // The other connections are probably as dead.
            self.discard_kept();
        } else if taken.connection.is_broken(&error) {
            tracing::debug!(%error, "a connection to the database broke");
            taken.connection.close_on_drop();
            self.discard_kept();
            return Ok(None);
        }
        Err(error)
    }

    /// Closes the kept connections, because another one was broken.
    pub(super) fn discard_kept(&self) {
        for (mut taken, _) in self.lock().connections.drain(..) {
            taken.connection.close_on_drop();
        }
    }

    /// Keeps a connection for the next transaction.
    fn keep(self: &Arc<Self>, taken: Taken, free: OwnedSemaphorePermit) {
        let mut kept = self.lock();
        let is_closed = either!(Pool, &self.pool, pool => pool.is_closed());
        // A closed pool waits for the return of all connections.
        if is_closed || taken.since.elapsed() > KEEP_AT_MOST {
            tokio::spawn(async move {
                taken.connection.give_back().await;
                drop(free);
            });
            return;
        }
        kept.connections.push((taken, Instant::now()));
        if !kept.returning {
            kept.returning = true;
            tokio::spawn(Arc::clone(self).return_unused());
        }
    }

    /// Returns connections that are kept without use to sqlx's pool, until none is kept.
    async fn return_unused(self: Arc<Self>) {
        loop {
            tokio::time::sleep(KEEP).await;
            let unused: Vec<_> = {
                let mut kept = self.lock();
                let is_unused = |(_, since): &mut (Taken, Instant)| since.elapsed() >= KEEP;
                kept.connections.extract_if(.., is_unused).collect()
            };
            give_all_back(unused).await;
            let mut kept = self.lock();
            if kept.connections.is_empty() {
                kept.returning = false;
                return;
            }
        }
    }

    async fn close(&self) {
        self.free.close();
        let closing = async { either!(Pool, &self.pool, pool => pool.close().await) };
        let emptying = async {
            let kept = std::mem::take(&mut self.lock().connections);
            give_all_back(kept).await;
        };
        tokio::join!(closing, emptying);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn give_all_back(kept: Vec<(Taken, Instant)>) {
    let each = kept.into_iter();
    futures::future::join_all(each.map(|(taken, _)| taken.connection.give_back())).await;
}

/// A connection of one engine.
#[derive(Debug)]
pub(super) enum Connection {
    Postgres(PoolConnection<postgres::Driver>),
    Sqlite(PoolConnection<sqlite::Driver>),
}

impl Connection {
    /// Returns the statement that begins a transaction. On PostgreSQL a read needs none: with READ COMMITTED each statement
    /// sees the data of its own time anyway, and BEGIN and COMMIT are two round trips.
    fn begin_statement(&self, intent: Intent) -> Option<&'static str> {
        match (self, intent) {
            (Connection::Postgres(_), Intent::Read) => None,
            (Connection::Postgres(_), Intent::Snapshot) => {
                Some("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            }
            // A transaction that reads first and writes later would otherwise fail immediately, without waiting,
            // when another one wrote in between.
            (Connection::Sqlite(_), Intent::Write) => Some("BEGIN IMMEDIATE"),
            _ => Some("BEGIN"),
        }
    }

    /// Returns the statement that commits a transaction, and wakes the workers of other processes if it `wakes`. Other
    /// processes on a SQLite database poll.
    fn commit_statement(&self, wakes: bool) -> &'static str {
        match self {
            Connection::Postgres(_) if wakes => "SELECT pg_notify('duffy_work', ''); COMMIT",
            _ => "COMMIT",
        }
    }

    /// Begins a transaction within the deadline.
    async fn begin(&mut self, intent: Intent, deadline: Duration) -> Result<(), sqlx::Error> {
        let Some(statement) = self.begin_statement(intent) else {
            return Ok(());
        };
        let begun = tokio::time::timeout(deadline, self.execute(statement)).await;
        begun.unwrap_or_else(|_| {
            // The connection may be in a transaction, now or later.
            self.close_on_drop();
            Err(sqlx::Error::PoolTimedOut)
        })
    }

    /// Whether BEGIN failed because the connection is broken. PostgreSQL has no other reason; a server that stops says
    /// so before it closes the connection.
    fn is_broken(&self, error: &sqlx::Error) -> bool {
        matches!(self, Connection::Postgres(_)) || matches!(error, sqlx::Error::WorkerCrashed)
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        either!(Connection, self, own => (&mut **own).execute(statement).await.map(drop))
    }

    fn close_on_drop(&mut self) {
        either!(Connection, self, own => own.close_on_drop());
    }

    /// Returns the connection to sqlx's pool if it answers, else closes it.
    async fn give_back(self) {
        let returned = async { either!(Connection, self, mut own => own.return_to_pool().await) };
        if tokio::time::timeout(CLEAN_UP, returned).await.is_err() {
            tracing::warn!("a connection to the database does not answer and is closed");
        }
    }
}

/// A connection in a transaction, or in a read without one. A transaction is rolled back when this is dropped. sqlx has such a type, but keeps its
/// connection: when the server stops responding, the connection would stay in the pool and wait for an answer.
#[derive(Debug)]
pub(super) struct Transaction {
    /// `None` after the end.
    held: Option<(Taken, OwnedSemaphorePermit)>,
    /// Whether there is a transaction to end.
    open: bool,
    pool: Arc<ConnectionPool>,
}

impl Transaction {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match &mut self.held {
            Some((taken, _)) => &mut taken.connection,
            None => unreachable!("only the end takes the connection"),
        }
    }

    pub(super) async fn commit(&mut self, wakes: bool) -> Result<(), sqlx::Error> {
        if self.open {
            let connection = self.connection();
            let statement = connection.commit_statement(wakes);
            connection.execute(statement).await?;
        }
        if let Some((taken, free)) = self.held.take() {
            self.pool.keep(taken, free);
        }
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some((taken, free)) = self.held.take() else {
            return;
        };
        let (open, mut connection) = (self.open, taken.connection);
        tokio::spawn(async move {
            let undone = async {
                if open {
                    connection.execute("ROLLBACK").await
                } else {
                    Ok(())
                }
            };
            if let Ok(Ok(())) = tokio::time::timeout(CLEAN_UP, undone).await {
                connection.give_back().await;
            } else {
                connection.close_on_drop();
            }
            drop(free);
        });
    }
}

#[cfg(test)]
mod tests {
    use duffy_config::DatabaseUrl;
    use tokio::sync::Notify;

    use super::*;
    use crate::db::{Db, DbError, DbResult};

    #[tokio::test]
    async fn only_so_many_wait_for_a_connection_and_the_reserved_ones_are_free() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("duffy.sqlite");
        let url = DatabaseUrl::Sqlite { path };
        let db = Db::open(&url, 1, true).await.unwrap();
        let (held, free) = (Notify::new(), Notify::new());
        let holder = db.read(async |tx| -> DbResult<_> {
            held.notify_one();
            free.notified().await;
            drop(tx);
            Ok(())
        });
        let others = async {
            held.notified().await;
            let mut waiting: Vec<_> = (0..WAITING_PER_CONNECTION)
                .map(|_| Box::pin(db.ping()))
                .collect();
            for one in &mut waiting {
                assert!(futures::poll!(one).is_pending());
            }
            let refused = db.ping().await;
            assert!(
                matches!(refused, Err(DbError::Unavailable(_))),
                "{refused:?}"
            );
            db.reserved().ping().await.unwrap();
            free.notify_one();
            futures::future::try_join_all(waiting).await.unwrap();
            db.ping().await.unwrap();
        };
        let (held, ()) = tokio::join!(holder, others);
        held.unwrap();
    }
}
