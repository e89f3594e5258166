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
use super::engines::{Notifications, postgres, sqlite};

/// Wake-ups within this time of each other count as one.
const TOGETHER: Duration = Duration::from_millis(20);
/// How long connecting to listen may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Waits for wake-ups.
pub struct WakeUps {
    pool: Pool,
    /// Wake-ups of this process.
    local: watch::Receiver<()>,
    /// Wake-ups of other processes, while this one listens.
    notifications: Option<Notifications>,
    /// When a wake-up that no wait has returned yet is returned.
    due: Option<Instant>,
}

impl WakeUps {
    pub(super) fn new(pool: Pool, local: watch::Receiver<()>) -> Self {
        Self {
            pool,
            local,
            notifications: None,
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
            if self.notifications.is_none() && self.listen().await {
                // Earlier wake-ups are missed.
                return true;
            }
            if !self.wait_for_notification(poll).await {
                return false;
            }
            *self.due.insert(Instant::now() + TOGETHER)
        };
        tokio::time::sleep_until(due).await;
        self.due = None;
        self.local.mark_unchanged();
        while let Some(notifications) = &mut self.notifications
            && let Some(notification) = notifications.next().now_or_never()
        {
            self.note(notification);
        }
        true
    }

    /// Polls from now on if a notification is an error, or if the stream has ended.
    fn note(&mut self, notification: Option<Result<(), sqlx::Error>>) {
        let ended = || Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        if let Err(error) = notification.unwrap_or_else(ended) {
            tracing::warn!(%error, "lost the connection for wake-ups; polling");
            self.notifications = None;
        }
    }

    async fn wait_for_notification(&mut self, poll: Duration) -> bool {
        let remote = async {
            match &mut self.notifications {
                Some(notifications) => notifications.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(poll) => false,
            Ok(()) = self.local.changed() => true,
            notification = remote => {
                self.note(notification);
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
            Ok(Ok(notifications)) => self.notifications = notifications,
            Ok(Err(error)) => tracing::debug!(%error, "cannot listen for wake-ups; polling"),
            Err(_) => tracing::debug!("cannot listen for wake-ups in time; polling"),
        }
        self.notifications.is_some()
    }
}
