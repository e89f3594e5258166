//! API keys: hashing and checking them.
//!
//! The original stores a bcrypt hash of a key, whose check costs a quarter of a second of a core. That protects
//! passwords. API keys are random UUIDs, which nobody guesses, however cheap a guess is. A digest therefore stands beside
//! the hash, and decides alone where it fits the hash. bcrypt runs for hashes without one: those that the original wrote
//! or changed, until their key is first verified.

mod digest;
mod gate;
mod limiter;
mod ssh_keys;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;

use crate::db::tenants::StoredKey;
pub use gate::CredentialsError;
use gate::Gate;
pub use ssh_keys::{SshKeysError, check_ssh_keys, lines_without_key};
pub use verify::{Attempt, Stored, Verdict};

/// bcrypt's cost, as the original has it: 2 to the power of this many rounds.
const COST: u32 = 12;

/// Hashes API keys and checks them. Cheap to clone; clones share their limits.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    gate: Gate,
    /// Of checks by bcrypt.
    checks: limiter::Limiter,
    /// Of wrong keys that a digest refused.
    failures: limiter::Limiter,
    /// What the keys of unknown tenants are checked against, so that they take as long.
    dummy: verify::Stored<String>,
    running: verify::Running,
}

impl Credentials {
    /// With the cost that the stored hashes have.
    pub fn new() -> Self {
        Self::with_cost(COST)
    }

    /// With another cost, between 4 and 31: for tests, where a low one saves time.
    pub fn with_cost(cost: u32) -> Self {
        Self {
            inner: Arc::new(Inner {
                gate: Gate::new(cost.clamp(4, 31)),
                checks: limiter::Limiter::new(limiter::Rates::default()),
                failures: limiter::Limiter::new(limiter::Rates::default()),
                dummy: verify::Stored::dummy(),
                running: verify::Running::default(),
            }),
        }
    }

    /// Makes what is stored of a key: its hash, in bcrypt's `$2b$` form, and its digest. Takes a quarter of a second.
    pub async fn hash(&self, key: &str) -> Result<StoredKey, CredentialsError> {
        let hash = self.inner.gate.hash(key.to_owned()).await?;
        let digest = Some(digest::digest(&hash, key));
        Ok(StoredKey { hash, digest })
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
