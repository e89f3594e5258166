//! Connections to the database: two pools, and the transactions on their connections.
//!
//! Leases must be renewed whatever clients ask for. Their renewals, and the writes of workers, therefore have a pool of
//! their own. Everything else uses the general pool, where the number of waiting transactions is limited.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Executor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::dialect::{Postgres, Sqlite};

/// The most connections of the reserved pool.
pub(super) const RESERVED: u32 = 4;
/// How many transactions may wait for each connection of the general pool. The longest wait is ten seconds: with
/// transactions of 150 ms and more, others would wait in vain.
const WAITING_PER_CONNECTION: usize = 64;
/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(5);
/// How long a connection may take to roll back, and to answer before it is used again.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// What a transaction is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Intent {
    Read,
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
    pub(super) general: Pool,
    reserved: Pool,
    waiting: Arc<Semaphore>,
}

impl Pools {
    /// `size` is that of the general pool.
    pub(super) fn new(general: Pool, reserved: Pool, size: u32) -> Self {
        let waiting = WAITING_PER_CONNECTION.saturating_mul(size as usize);
        Self {
            general,
            reserved,
            waiting: Arc::new(Semaphore::new(waiting.min(Semaphore::MAX_PERMITS))),
        }
    }

    pub(super) fn of(&self, share: Share) -> &Pool {
        match share {
            Share::General => &self.general,
            Share::Reserved => &self.reserved,
        }
    }

    /// A place among those who wait for a connection; an error when there is none.
    pub(super) fn wait(&self, share: Share) -> Result<Option<OwnedSemaphorePermit>, sqlx::Error> {
        if share == Share::Reserved {
            return Ok(None);
        }
        let place = Arc::clone(&self.waiting).try_acquire_owned();
        place.map(Some).map_err(|_| {
            let text = "too many transactions wait for a connection";
            io::Error::new(io::ErrorKind::ResourceBusy, text).into()
        })
    }

    /// Closes all connections, after those in use are given back; a few seconds at most.
    pub(super) async fn close(&self) {
        let closed = async { tokio::join!(self.general.close(), self.reserved.close()) };
        if tokio::time::timeout(CLOSE, closed).await.is_err() {
            tracing::warn!("connections to the database did not close");
        }
    }
}

/// Connections of one engine.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(all(feature = "postgresql", feature = "sqlite")),
    expect(dead_code, reason = "a build with one engine opens only its pools")
)]
pub(super) enum Pool {
    Postgres(sqlx::Pool<Postgres>),
    Sqlite(sqlx::Pool<Sqlite>),
}

impl Pool {
    /// Waits for a connection, and begins a transaction, which may take so long.
    pub(super) async fn begin(
        &self,
        intent: Intent,
        deadline: Duration,
    ) -> Result<TxInner, sqlx::Error> {
        match (self, intent) {
            (Pool::Postgres(pool), _) => {
                let begun = Transaction::begin(pool, "BEGIN", deadline);
                begun.await.map(TxInner::Postgres)
            }
            (Pool::Sqlite(pool), Intent::Read) => {
                let begun = Transaction::begin(pool, "BEGIN", deadline);
                begun.await.map(TxInner::Sqlite)
            }
            // IMMEDIATE: a transaction that reads first and writes then would else fail at
            // once when another one wrote in between, without waiting.
            (Pool::Sqlite(pool), Intent::Write) => {
                let begun = Transaction::begin(pool, "BEGIN IMMEDIATE", deadline);
                begun.await.map(TxInner::Sqlite)
            }
        }
    }

    async fn close(&self) {
        match self {
            Pool::Postgres(pool) => pool.close().await,
            Pool::Sqlite(pool) => pool.close().await,
        }
    }
}

/// A transaction of one engine.
#[derive(Debug)]
pub(super) enum TxInner {
    Postgres(Transaction<Postgres>),
    Sqlite(Transaction<Sqlite>),
}

impl TxInner {
    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        match self {
            TxInner::Postgres(tx) => tx.commit().await,
            TxInner::Sqlite(tx) => tx.commit().await,
        }
    }
}

/// A connection in a transaction, which is rolled back when this is dropped. sqlx has such a type, but keeps its
/// connection: when the server stops responding, the connection would stay in the pool and wait for an answer.
#[derive(Debug)]
pub(super) struct Transaction<D: Database>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    /// None after the end.
    connection: Option<PoolConnection<D>>,
}

impl<D: Database> Transaction<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    async fn begin(
        pool: &sqlx::Pool<D>,
        statement: &'static str,
        deadline: Duration,
    ) -> Result<Self, sqlx::Error> {
        let mut connection = pool.acquire().await?;
        let begun = (&mut *connection).execute(statement);
        match tokio::time::timeout(deadline, begun).await {
            Ok(Ok(_)) => Ok(Self {
                connection: Some(connection),
            }),
            Ok(Err(error)) => Err(error),
            // The connection may be in a transaction, now or later.
            Err(_) => {
                connection.close_on_drop();
                Err(sqlx::Error::PoolTimedOut)
            }
        }
    }

    async fn commit(&mut self) -> Result<(), sqlx::Error> {
        (&mut **self).execute("COMMIT").await?;
        if let Some(connection) = self.connection.take() {
            tokio::spawn(give_back(connection));
        }
        Ok(())
    }
}

/// Returns a connection to its pool if it answers, else closes it.
async fn give_back<D: Database>(mut connection: PoolConnection<D>) {
    let returned = connection.return_to_pool();
    if tokio::time::timeout(CLEAN_UP, returned).await.is_err() {
        tracing::warn!("a connection to the database does not answer and is closed");
    }
}

impl<D: Database> Drop for Transaction<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        tokio::spawn(async move {
            let undone = (&mut *connection).execute("ROLLBACK");
            if let Ok(Ok(_)) = tokio::time::timeout(CLEAN_UP, undone).await {
                give_back(connection).await;
            } else {
                connection.close_on_drop();
            }
        });
    }
}

impl<D: Database> Deref for Transaction<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("only the end takes the connection"),
        }
    }
}

impl<D: Database> DerefMut for Transaction<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    fn deref_mut(&mut self) -> &mut D::Connection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("only the end takes the connection"),
        }
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use duffy_config::DatabaseUrl;
    use tokio::sync::Notify;

    use super::*;
    use crate::db::{Db, DbError};

    #[tokio::test]
    async fn only_so_many_wait_for_a_connection_and_the_reserved_ones_are_free() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("duffy.sqlite");
        let url = DatabaseUrl::Sqlite { path };
        let db = Db::open(&url, 1, true).await.unwrap();
        let (held, free) = (Notify::new(), Notify::new());
        let holder = db.read(async |tx| -> Result<_, DbError> {
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
