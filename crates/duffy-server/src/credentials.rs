//! API keys: hashing them, and checking them without paying for bcrypt on every request.
//!
//! A bcrypt check costs a quarter of a second of a core. A key that passed is therefore
//! remembered (not the key: a digest of it under a secret that lives and dies with the process),
//! together with the stored hash it was checked against. The stored hash is read with the tenant
//! on every request anyway, so that a changed key counts at once.

mod gate;
#[cfg(feature = "app")]
mod limiter;
#[cfg(feature = "app")]
mod memory;
mod ssh_keys;
#[cfg(test)]
mod tests;
#[cfg(feature = "app")]
mod verify;

use std::sync::Arc;

pub use gate::CredentialsError;
use gate::Gate;
#[cfg(feature = "app")]
use memory::Memory;
pub use ssh_keys::{SshKeysError, check_ssh_keys, lines_without_key};
#[cfg(feature = "app")]
pub use verify::{Attempt, Verdict};

/// bcrypt's cost, as the original has it: 2 to the power of this many rounds.
const COST: u32 = 12;

/// Hashes API keys and checks them. Cheap to clone; clones share what they remember.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    gate: Gate,
    #[cfg(feature = "app")]
    memory: Memory,
    #[cfg(feature = "app")]
    limiter: limiter::Limiter,
    /// What the keys of unknown tenants are checked against, so that they take as long.
    #[cfg(feature = "app")]
    dummy_hash: tokio::sync::OnceCell<String>,
    #[cfg(feature = "app")]
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
                #[cfg(feature = "app")]
                memory: Memory::new(),
                #[cfg(feature = "app")]
                limiter: limiter::Limiter::new(limiter::Rates::default()),
                #[cfg(feature = "app")]
                dummy_hash: tokio::sync::OnceCell::new(),
                #[cfg(feature = "app")]
                running: verify::Running::default(),
            }),
        }
    }

    /// Makes the hash to store for a key, in bcrypt's `$2b$` form. Takes a quarter of a second.
    pub async fn hash(&self, key: &str) -> Result<String, CredentialsError> {
        self.inner.gate.hash(key.to_owned()).await
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
