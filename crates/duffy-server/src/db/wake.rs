//! Wake-ups: hints that there is work, so that workers need not wait for the next poll.
//!
//! Within a process they use a channel; between processes PostgreSQL's NOTIFY, once per transaction. Losing one costs
//! time, not work.

use std::io;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connections::Pool;
use super::engines::{Words, postgres, sqlite};

/// Wake-ups within this time of each other count as one.
const TOGETHER: Duration = Duration::from_millis(20);
/// How long connecting to listen may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Waits for wake-ups.
pub struct WakeUps {
    pool: Pool,
    /// Wake-ups of this process.
    bell: watch::Receiver<()>,
    /// Wake-ups of other processes, while this one listens.
    words: Option<Words>,
    /// When a wake-up that no wait has returned yet is returned.
    due: Option<Instant>,
}

impl WakeUps {
    pub(super) fn new(pool: Pool, bell: watch::Receiver<()>) -> Self {
        Self {
            pool,
            bell,
            words: None,
            due: None,
        }
    }

    /// Returns true when there is, or may have been, a wake-up, and false after `poll`. Wake-ups that come close together
    /// are one. The future can be dropped and the function called again at any time: the next call returns what came
    /// meanwhile.
    pub async fn wait(&mut self, poll: Duration) -> bool {
        let due = if let Some(due) = self.due {
            due
        } else {
            if self.words.is_none() && self.listen().await {
                // Earlier wake-ups are missed.
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
        while let Some(words) = &mut self.words
            && let Some(word) = words.next().now_or_never()
        {
            self.note(word);
        }
        true
    }

    /// Polls from now on if a word is an error, or if the stream has ended.
    fn note(&mut self, word: Option<Result<(), sqlx::Error>>) {
        let ended = || Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        if let Err(error) = word.unwrap_or_else(ended) {
            tracing::warn!(%error, "lost the connection for wake-ups; polling");
            self.words = None;
        }
    }

    async fn wait_for_word(&mut self, poll: Duration) -> bool {
        let remote = async {
            match &mut self.words {
                Some(words) => words.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(poll) => false,
            Ok(()) = self.bell.changed() => true,
            word = remote => {
                self.note(word);
                // Wake-ups may be missed after an error, so the caller looks for work then too.
                true
            }
        }
    }

    /// Begins to listen. False when that is not possible.
    async fn listen(&mut self) -> bool {
        let connected = async {
            match &self.pool {
                Pool::Postgres(pool) => postgres::listen(pool).await,
                Pool::Sqlite(pool) => sqlite::listen(pool).await,
            }
        };
        match tokio::time::timeout(CONNECT, connected).await {
            Ok(Ok(words)) => self.words = words,
            Ok(Err(error)) => tracing::debug!(%error, "cannot listen for wake-ups; polling"),
            Err(_) => tracing::debug!("cannot listen for wake-ups in time; polling"),
        }
        self.words.is_some()
    }
}
