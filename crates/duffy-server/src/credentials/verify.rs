//! Checks the key that a request comes with.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::gate::{CredentialsError, Gate};
use super::{Credentials, Inner, digest};

/// A key somebody authenticates with.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The tenant's name as given.
    pub name: &'a str,
    /// The key as given.
    pub key: &'a str,
    /// What is stored for the tenant; `None` when there is no such tenant.
    pub stored: Option<Stored<&'a str>>,
    /// Where the request comes from; `None` where that isn't known.
    pub peer: Option<IpAddr>,
}

/// What is stored of a tenant's key.
#[derive(Clone, Copy)]
pub struct Stored<T> {
    /// The bcrypt hash.
    pub hash: T,
    /// The digest, which may be that of an earlier hash.
    pub digest: Option<T>,
}

impl Stored<String> {
    /// Of a key that nobody has.
    pub(super) fn dummy() -> Self {
        let hash = uuid::Uuid::new_v4().to_string();
        let digest = Some(digest::digest(&hash, &uuid::Uuid::new_v4().to_string()));
        Self { hash, digest }
    }

    fn as_deref(&self) -> Stored<&str> {
        Stored {
            hash: &self.hash,
            digest: self.digest.as_deref(),
        }
    }
}

impl<T> std::fmt::Debug for Stored<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored").finish_non_exhaustive()
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The key is the tenant's.
    Verified,
    /// The same. The stored hash has no digest: store this one with it.
    VerifiedByHash {
        /// The digest of the key.
        digest: String,
    },
    /// It is not, or there is no such tenant; nothing tells which.
    Refused,
    /// Too many keys were tried lately. It is wrong, or was not looked at.
    TooManyFailures {
        /// When to try again.
        retry_after: Duration,
    },
}

/// Checks by bcrypt that run, by their digests: a request that asks the same meanwhile waits for the same answer.
#[derive(Default)]
pub(super) struct Running(Mutex<HashMap<String, Arc<OnceCell<bool>>>>);

impl Running {
    fn join(&self, digest: &str) -> Arc<OnceCell<bool>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(running.entry(digest.to_owned()).or_default())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.is_empty()
    }

    fn leave(&self, digest: &str, cell: Arc<OnceCell<bool>>) {
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
    digest: &'a str,
    cell: Option<Arc<OnceCell<bool>>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            self.running.leave(self.digest, cell);
        }
    }
}

/// Why a check that ran gave no answer.
enum NoAnswer {
    Limited(Duration),
    Failed(CredentialsError),
}

impl Credentials {
    /// Checks a key: by the digest where it fits the stored hash, else by bcrypt, within limits. A right key is never
    /// limited where there is a digest.
    pub async fn verify(&self, attempt: Attempt<'_>) -> Result<Verdict, CredentialsError> {
        let inner = &*self.inner;
        // Nobody can tell by the time whether a tenant exists.
        let stored = attempt.stored.unwrap_or(inner.dummy.as_deref());
        let Some(digest) = stored
            .digest
            .filter(|digest| digest::fits(digest, stored.hash))
        else {
            return inner.check_by_hash(attempt, stored).await;
        };
        if digest::is_of(digest, stored.hash, attempt.key) && attempt.stored.is_some() {
            return Ok(Verdict::Verified);
        }
        Ok(match inner.failures.check(attempt.peer, attempt.name) {
            Ok(()) => Verdict::Refused,
            Err(retry_after) => Verdict::TooManyFailures { retry_after },
        })
    }
}

impl Inner {
    /// Many that ask the same at once share one check.
    async fn check_by_hash(
        &self,
        attempt: Attempt<'_>,
        stored: Stored<&str>,
    ) -> Result<Verdict, CredentialsError> {
        let digest = digest::digest(stored.hash, attempt.key);
        let cell = self.running.join(&digest);
        let waiting = Waiting {
            running: &self.running,
            digest: &digest,
            cell: Some(Arc::clone(&cell)),
        };
        let ours = AtomicBool::new(false);
        let check = async {
            ours.store(true, Ordering::Relaxed);
            self.ask_bcrypt(attempt, stored).await
        };
        let result = cell.get_or_try_init(|| check).await.copied();
        drop(cell);
        drop(waiting);
        match result {
            // One of those that share a check stores it.
            Ok(true) if ours.into_inner() => Ok(Verdict::VerifiedByHash { digest }),
            Ok(true) => Ok(Verdict::Verified),
            Ok(false) => Ok(Verdict::Refused),
            Err(NoAnswer::Limited(retry_after)) => Ok(Verdict::TooManyFailures { retry_after }),
            Err(NoAnswer::Failed(error)) => Err(error),
        }
    }

    async fn ask_bcrypt(
        &self,
        attempt: Attempt<'_>,
        stored: Stored<&str>,
    ) -> Result<bool, NoAnswer> {
        let limited = if stored.digest.is_some() {
            // Its key was verified before, and changed by another program: other names at the address do not count.
            self.checks.check_reserved(attempt.peer, attempt.name)
        } else {
            self.checks.check(attempt.peer, attempt.name)
        };
        limited.map_err(NoAnswer::Limited)?;
        if !Gate::fits(attempt.key) {
            return Ok(false);
        }
        let (key, hash) = (attempt.key.to_owned(), stored.hash.to_owned());
        self.gate.verify(key, hash).await.map_err(NoAnswer::Failed)
    }
}
