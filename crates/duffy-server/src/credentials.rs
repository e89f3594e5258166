//! API keys: hashing and checking them.
//!
//! The original stores a bcrypt hash of a key, whose check costs a quarter of a second of a core. That protects
//! passwords. API keys are random UUIDs, which nobody guesses, however cheap a guess is. So a digest is stored
//! with the hash. If it belongs to this hash, only the digest is checked. bcrypt runs for hashes without a digest: those
//! that the original wrote or changed, until their key is first verified.

mod digest;
mod gate;
mod limiter;
mod ssh_keys;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::db::tenants::StoredKey;
pub use gate::CredentialsError;
use gate::Gate;
use limiter::Limiter;
pub use ssh_keys::{SshKeysError, check_ssh_keys, lines_without_key};

/// bcrypt's cost, as the original has it: 2 to the power of this many rounds.
const COST: u32 = 12;

/// A key that a request comes with.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The tenant's name as given.
    pub name: &'a str,
    /// The key as given.
    pub key: &'a str,
    /// What is stored for the tenant; `None` when there is no such tenant.
    pub stored: Option<&'a StoredKey>,
    /// The address of the client; `None` where it is not known.
    pub peer: Option<IpAddr>,
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The key is the tenant's.
    Verified,
    /// The key is the tenant's. The stored hash has no digest: store this one with it.
    VerifiedByHash {
        /// The digest of the key.
        digest: String,
    },
    /// The key is not the tenant's, or there is no such tenant; nothing shows which.
    Refused,
    /// Too many keys were tried lately. This key is wrong, or was not checked.
    TooManyFailures {
        /// When to try again.
        retry_after: Duration,
    },
}

/// Hashes API keys and checks them. Cheap to clone; clones share their limits.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    gate: Gate,
    /// Limits checks by bcrypt.
    checks: Limiter,
    /// Limits wrong keys that a digest refused.
    failures: Limiter,
    /// What the keys of unknown tenants are checked against, so that their checks take as long.
    dummy: StoredKey,
    running: RunningChecks,
}

impl Credentials {
    /// Uses the cost that the stored hashes have.
    pub fn new() -> Self {
        Self::with_cost(COST)
    }

    /// Uses another cost, between 4 and 31: for tests, where a low one saves time.
    pub fn with_cost(cost: u32) -> Self {
        let (hash, key) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let digest = Some(digest::digest(&hash, &key));
        Self {
            inner: Arc::new(Inner {
                gate: Gate::new(cost.clamp(4, 31)),
                checks: Limiter::default(),
                failures: Limiter::default(),
                dummy: StoredKey { hash, digest },
                running: RunningChecks::default(),
            }),
        }
    }

    /// Makes what is stored of a key: its hash, in bcrypt's `$2b$` form, and its digest. Takes a quarter of a second.
    pub async fn hash(&self, key: &str) -> Result<StoredKey, CredentialsError> {
        let hash = self.inner.gate.hash(key.to_owned()).await?;
        let digest = Some(digest::digest(&hash, key));
        Ok(StoredKey { hash, digest })
    }

    /// Checks a key: by the digest where it fits the stored hash, otherwise by bcrypt, within limits. A right key is
    /// never limited where there is a digest.
    pub async fn verify(&self, attempt: Attempt<'_>) -> Result<Verdict, CredentialsError> {
        let inner = &*self.inner;
        // The time that a check takes does not show whether a tenant exists.
        let stored = attempt.stored.unwrap_or(&inner.dummy);
        let digest = stored.digest.as_deref();
        let Some(digest) = digest.filter(|digest| digest::fits(digest, &stored.hash)) else {
            return inner.check_by_hash(attempt, stored).await;
        };
        if digest::is_of(digest, &stored.hash, attempt.key) && attempt.stored.is_some() {
            return Ok(Verdict::Verified);
        }
        Ok(match inner.failures.check(attempt.peer, attempt.name) {
            Ok(()) => Verdict::Refused,
            Err(retry_after) => Verdict::TooManyFailures { retry_after },
        })
    }
}

impl Inner {
    /// Checks a key by bcrypt. Requests that ask the same at the same time share one check.
    async fn check_by_hash(
        &self,
        attempt: Attempt<'_>,
        stored: &StoredKey,
    ) -> Result<Verdict, CredentialsError> {
        let digest = digest::digest(&stored.hash, attempt.key);
        let waiting = self.running.join(&digest);
        let ours = AtomicBool::new(false);
        let check = async {
            ours.store(true, Ordering::Relaxed);
            self.ask_bcrypt(attempt, stored).await
        };
        let result = waiting.cell.get_or_try_init(|| check).await.copied();
        drop(waiting);
        match result {
            // One of the requests that share a check stores the digest.
            Ok(true) if ours.into_inner() => Ok(Verdict::VerifiedByHash { digest }),
            Ok(true) => Ok(Verdict::Verified),
            Ok(false) => Ok(Verdict::Refused),
            Err(outcome) => outcome,
        }
    }

    /// Returns whether the key is right, or the outcome for this request alone if bcrypt did not run.
    async fn ask_bcrypt(
        &self,
        attempt: Attempt<'_>,
        stored: &StoredKey,
    ) -> Result<bool, Result<Verdict, CredentialsError>> {
        let limited = if stored.digest.is_some() {
            // Its key was verified before, and changed by another program: other names at the address do not count.
            self.checks.check_reserved(attempt.peer, attempt.name)
        } else {
            self.checks.check(attempt.peer, attempt.name)
        };
        limited.map_err(|retry_after| Ok(Verdict::TooManyFailures { retry_after }))?;
        if !Gate::fits(attempt.key) {
            return Ok(false);
        }
        let (key, hash) = (attempt.key.to_owned(), stored.hash.clone());
        self.gate.verify(key, hash).await.map_err(Err)
    }
}

/// Checks by bcrypt that run, by their digests: a request that asks the same meanwhile waits for the same result.
#[derive(Default)]
struct RunningChecks(Mutex<HashMap<String, Arc<OnceCell<bool>>>>);

impl RunningChecks {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<OnceCell<bool>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join<'a>(&'a self, digest: &'a str) -> Waiting<'a> {
        let cell = Arc::clone(self.lock().entry(digest.to_owned()).or_default());
        Waiting {
            running: self,
            digest,
            cell,
        }
    }
}

/// A wait for a check. It also ends when the request is given up meanwhile.
struct Waiting<'a> {
    running: &'a RunningChecks,
    digest: &'a str,
    cell: Arc<OnceCell<bool>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        // Dropped under the lock, so that the last one to leave sees that it is the last.
        let cell = std::mem::take(&mut self.cell);
        // The last one removes the entry: one reference is the map's, one is ours.
        if Arc::strong_count(&cell) <= 2 {
            running.remove(self.digest);
        }
        drop(cell);
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}
