//! Wake-ups: hints that there is work, so that workers need not wait for the next poll.
//!
//! Within a process they go over a channel; from process to process over PostgreSQL's
//! NOTIFY, once per transaction. Losing one costs time, not work.

#[cfg(feature = "postgresql")]
use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

#[cfg(feature = "postgresql")]
use super::connections::Pool;
use super::{Db, DbError, Tx};

/// As the statement has it that tells of work.
#[cfg(feature = "postgresql")]
const CHANNEL: &str = "duffy_work";

/// Words that come within this time of each other are one.
const TOGETHER: Duration = Duration::from_millis(20);
/// How long connecting to listen may take.
#[cfg(feature = "postgresql")]
const CONNECT: Duration = Duration::from_secs(5);

/// The bell of one process.
#[derive(Debug)]
pub(super) struct Wake {
    bell: watch::Sender<u64>,
}

impl Wake {
    pub(super) fn new() -> Self {
        Self {
            bell: watch::Sender::new(0),
        }
    }

    pub(super) fn ring(&self) {
        self.bell.send_modify(|count| *count += 1);
    }
}

/// Queues NOTIFY for the commit.
pub(super) async fn announce(tx: &mut Tx) -> Result<(), DbError> {
    tx.query("{notify}").execute().await.map(|_| ())
}

pub(super) async fn ping(tx: &mut Tx) -> Result<(), DbError> {
    tx.query("SELECT 1").execute().await.map(|_| ())
}

/// Waits for wake-ups.
#[derive(Debug)]
pub struct WakeUps {
    #[cfg(feature = "postgresql")]
    db: Db,
    bell: watch::Receiver<u64>,
    /// There was word, which no wait has returned yet: one does at this time.
    due: Option<Instant>,
    #[cfg(feature = "postgresql")]
    listener: Option<sqlx::postgres::PgListener>,
}

impl WakeUps {
    pub(super) fn new(db: &Db) -> Self {
        Self {
            bell: db.wake.bell.subscribe(),
            due: None,
            #[cfg(feature = "postgresql")]
            db: db.clone(),
            #[cfg(feature = "postgresql")]
            listener: None,
        }
    }

    /// Returns when there is, or may have been, word of work, true then, or after `poll`. Words
    /// that come close together are one. Can be dropped and called again at any time: what came
    /// meanwhile is returned by the next call.
    pub async fn wait(&mut self, poll: Duration) -> bool {
        let due = if let Some(due) = self.due {
            due
        } else {
            #[cfg(feature = "postgresql")]
            if self.listener.is_none() && self.listen().await {
                // What was told before is missed.
                return true;
            }
            if !self.wait_for_word(poll).await {
                return false;
            }
            *self.due.insert(Instant::now() + TOGETHER)
        };
        tokio::time::sleep_until(due).await;
        self.due = None;
        self.bell.mark_unchanged();
        #[cfg(feature = "postgresql")]
        while self
            .listener
            .as_mut()
            .is_some_and(|own| own.next_buffered().is_some())
        {}
        true
    }

    async fn wait_for_word(&mut self, poll: Duration) -> bool {
        #[cfg(feature = "postgresql")]
        let remote = {
            let listener = self.listener.as_mut();
            async move {
                match listener {
                    Some(listener) => match listener.try_recv().await? {
                        Some(_) => Ok(()),
                        None => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
                    },
                    None => std::future::pending().await,
                }
            }
        };
        #[cfg(not(feature = "postgresql"))]
        let remote = std::future::pending::<Result<(), sqlx::Error>>();
        let told = tokio::select! {
            () = tokio::time::sleep(poll) => Ok(false),
            Ok(()) = self.bell.changed() => Ok(true),
            told = remote => told.map(|()| true),
        };
        told.unwrap_or_else(|error: sqlx::Error| {
            tracing::warn!(%error, "lost the connection that tells of work; polling");
            #[cfg(feature = "postgresql")]
            {
                self.listener = None;
            }
            // What was told meanwhile is missed: better look.
            true
        })
    }

    /// Begins to listen. False when that is not possible.
    #[cfg(feature = "postgresql")]
    async fn listen(&mut self) -> bool {
        use sqlx::postgres::PgListener;
        let Pool::Postgres(pool) = &self.db.pools.general else {
            return false;
        };
        let connected = async {
            // A connection of its own: one of the pool's would be missing there for ever.
            let options = sqlx::postgres::PgPoolOptions::new().max_connections(1);
            let own = options
                .connect_with((*pool.connect_options()).clone())
                .await?;
            let mut listener = PgListener::connect_with(&own).await?;
            // This must report a lost connection, and reconnect only where the caller can cancel it.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match tokio::time::timeout(CONNECT, connected).await {
            Ok(Ok(listener)) => {
                self.listener = Some(listener);
                true
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot listen for work; polling");
                false
            }
            Err(_) => {
                tracing::debug!("cannot listen for work in time; polling");
                false
            }
        }
    }
}
