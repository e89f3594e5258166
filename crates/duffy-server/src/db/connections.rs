//! Connections to the database: two pools, and the transactions on their connections.
//!
//! Requests of clients must not keep leases from being renewed. The renewals, and the writes of workers, therefore have
//! a pool of their own. Everything else uses the general pool, where the number of waiting transactions is limited.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Executor;
use sqlx::pool::PoolConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::engines::{postgres, sqlite};

/// How many transactions may wait for each connection of the general pool. The longest wait is ten seconds: if
/// transactions take 150 ms or more, further ones would wait in vain.
const WAITING_PER_CONNECTION: usize = 64;
/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(5);
/// How long a connection may take to roll back, and to answer before it is used again.
const CLEAN_UP: Duration = Duration::from_secs(5);

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
    pub(super) fn new((general, reserved): (Pool, Pool), size: u32) -> Self {
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

    /// Closes all connections once they are returned to their pools. Waits for a few seconds at most.
    pub(super) async fn close(&self) {
        let closed = async { tokio::join!(self.general.close(), self.reserved.close()) };
        if tokio::time::timeout(CLOSE, closed).await.is_err() {
            tracing::warn!("connections to the database did not close");
        }
    }
}

/// Connections of one engine.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Postgres(sqlx::Pool<postgres::Driver>),
    Sqlite(sqlx::Pool<sqlite::Driver>),
}

impl Pool {
    /// Waits for a connection, and begins a transaction on it within the deadline.
    pub(super) async fn begin(
        &self,
        intent: Intent,
        deadline: Duration,
    ) -> Result<Transaction, sqlx::Error> {
        let mut connection = match self {
            Pool::Postgres(pool) => Connection::Postgres(pool.acquire().await?),
            Pool::Sqlite(pool) => Connection::Sqlite(pool.acquire().await?),
        };
        let statement = match (&connection, intent) {
            // A transaction that reads first and writes later would otherwise fail immediately, without waiting,
            // when another one wrote in between.
            (Connection::Sqlite(_), Intent::Write) => "BEGIN IMMEDIATE",
            _ => "BEGIN",
        };
        let begun = tokio::time::timeout(deadline, connection.execute(statement)).await;
        if let Ok(begun) = begun {
            begun.map(|()| Transaction(Some(connection)))
        } else {
            // The connection may be in a transaction, now or later.
            connection.close_on_drop();
            Err(sqlx::Error::PoolTimedOut)
        }
    }

    async fn close(&self) {
        either!(Pool, self, pool => pool.close().await);
    }
}

/// A connection of one engine.
#[derive(Debug)]
pub(super) enum Connection {
    Postgres(PoolConnection<postgres::Driver>),
    Sqlite(PoolConnection<sqlite::Driver>),
}

impl Connection {
    async fn execute(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        either!(Connection, self, own => (&mut **own).execute(statement).await.map(drop))
    }

    fn close_on_drop(&mut self) {
        either!(Connection, self, own => own.close_on_drop());
    }

    /// Returns the connection to its pool if it answers, else closes it.
    async fn give_back(self) {
        let returned = async { either!(Connection, self, mut own => own.return_to_pool().await) };
        if tokio::time::timeout(CLEAN_UP, returned).await.is_err() {
            tracing::warn!("a connection to the database does not answer and is closed");
        }
    }
}

/// A connection in a transaction, which is rolled back when this is dropped; `None` after the end. sqlx has such a type,
/// but keeps its connection: when the server stops responding, the connection would stay in the pool and wait for an
/// answer.
#[derive(Debug)]
pub(super) struct Transaction(Option<Connection>);

impl Transaction {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match &mut self.0 {
            Some(connection) => connection,
            None => unreachable!("only the end takes the connection"),
        }
    }

    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.connection().execute("COMMIT").await?;
        if let Some(connection) = self.0.take() {
            tokio::spawn(connection.give_back());
        }
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else {
            return;
        };
        tokio::spawn(async move {
            let undone = connection.execute("ROLLBACK");
            if let Ok(Ok(())) = tokio::time::timeout(CLEAN_UP, undone).await {
                connection.give_back().await;
            } else {
                connection.close_on_drop();
            }
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
