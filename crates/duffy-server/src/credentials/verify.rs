//! Checks the key that a request comes with.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::gate::{CredentialsError, Gate};
use super::memory::Digest;
use super::{Credentials, Inner};

/// A key somebody authenticates with.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The tenant's name as given.
    pub name: &'a str,
    /// The key as given.
    pub key: &'a str,
    /// The hash stored for the tenant; `None` when there is no such tenant.
    pub stored: Option<&'a str>,
    /// Where the request comes from; `None` where that isn't known.
    pub peer: Option<IpAddr>,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The key is the tenant's.
    Verified,
    /// It is not, or there is no such tenant; nothing tells which.
    Refused,
    /// Too many keys were tried lately; this one was not looked at.
    TooManyFailures {
        /// When to try again.
        retry_after: Duration,
    },
}

/// Checks that run: whoever asks the same meanwhile waits for the same answer.
#[derive(Default)]
pub(super) struct Running(Mutex<HashMap<Digest, Arc<OnceCell<bool>>>>);

impl Running {
    fn join(&self, digest: Digest) -> Arc<OnceCell<bool>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(running.entry(digest).or_default())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.is_empty()
    }

    fn leave(&self, digest: &Digest, cell: Arc<OnceCell<bool>>) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one takes the entry away: one reference is the map's, one ours.
        if Arc::strong_count(&cell) <= 2 {
            running.remove(digest);
        }
        drop(cell);
    }
}

/// A wait for a check; leaves it also when the request is given up meanwhile.
struct Waiting<'a> {
    running: &'a Running,
    digest: Digest,
    cell: Option<Arc<OnceCell<bool>>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            self.running.leave(&self.digest, cell);
        }
    }
}

/// Why a check that ran gave no answer.
enum NoAnswer {
    Limited(Duration),
    Failed(CredentialsError),
}

impl Credentials {
    /// Checks a key. Keys that were checked lately are answered from memory, others by bcrypt,
    /// within limits; many that ask the same at once share one check.
    pub async fn verify(&self, attempt: Attempt<'_>) -> Result<Verdict, CredentialsError> {
        let inner = &*self.inner;
        let digest = inner
            .memory
            .digest(attempt.name, attempt.key, attempt.stored);
        if let Some(verified) = inner.memory.recall(&digest) {
            return Ok(verdict(verified));
        }
        let cell = inner.running.join(digest);
        let waiting = Waiting {
            running: &inner.running,
            digest,
            cell: Some(Arc::clone(&cell)),
        };
        let result = cell.get_or_try_init(|| inner.check(attempt, digest)).await;
        let result = result.copied();
        drop(cell);
        drop(waiting);
        match result {
            Ok(verified) => Ok(verdict(verified)),
            Err(NoAnswer::Limited(retry_after)) => Ok(Verdict::TooManyFailures { retry_after }),
            Err(NoAnswer::Failed(error)) => Err(error),
        }
    }
}

fn verdict(verified: bool) -> Verdict {
    if verified {
        Verdict::Verified
    } else {
        Verdict::Refused
    }
}

impl Inner {
    async fn check(&self, attempt: Attempt<'_>, digest: Digest) -> Result<bool, NoAnswer> {
        // Another one may have ended between our look into the memory and our turn.
        if let Some(verified) = self.memory.recall(&digest) {
            return Ok(verified);
        }
        self.limiter
            .check(attempt.peer, attempt.name)
            .map_err(NoAnswer::Limited)?;
        let verified = self.ask_bcrypt(attempt).await.map_err(NoAnswer::Failed)?;
        self.memory.remember(digest, verified);
        Ok(verified)
    }

    async fn ask_bcrypt(&self, attempt: Attempt<'_>) -> Result<bool, CredentialsError> {
        let fits = Gate::fits(attempt.key);
        let key = if fits { attempt.key } else { "" };
        let stored = if let (Some(stored), true) = (attempt.stored, fits) {
            stored
        } else {
            // Nobody can tell by the time whether the tenant exists.
            self.dummy_hash
                .get_or_try_init(|| self.gate.hash(uuid::Uuid::new_v4().to_string()))
                .await?
        };
        let verified = self.gate.verify(key.to_owned(), stored.to_owned()).await?;
        Ok(verified && fits && attempt.stored.is_some())
    }
}
