//! Runs bcrypt on threads of its own, at most one for each core.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// bcrypt ignores bytes beyond this; longer keys are refused instead.
const MAX_KEY: usize = 72;

/// Most checks that wait for a core. At four a second and core, the last one waits a minute.
const MAX_WAITING: usize = 256;

/// Why a key could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The key has more bytes than bcrypt reads, or a NUL.
    #[error("an API key has at most {MAX_KEY} bytes and no NUL: use a UUID")]
    UnfitKey,
    /// Too many checks wait already.
    #[error("too many API keys are being checked: try again later")]
    Busy,
    /// bcrypt failed.
    #[error("bcrypt failed: {0}")]
    Bcrypt(#[from] bcrypt::BcryptError),
    /// The thread was lost.
    #[error("a thread that checked an API key was lost")]
    ThreadLost,
}

pub(super) struct Gate {
    cost: u32,
    cores: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// How often bcrypt ran, for tests.
    #[cfg(test)]
    pub(super) runs: AtomicUsize,
}

impl Gate {
    pub(super) fn new(cost: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            cost,
            cores: Arc::new(Semaphore::new(cores)),
            waiting: AtomicUsize::new(0),
            #[cfg(test)]
            runs: AtomicUsize::new(0),
        }
    }

    /// Whether bcrypt can hash a key.
    pub(super) fn fits(key: &str) -> bool {
        key.len() <= MAX_KEY && !key.contains('\0')
    }

    pub(super) async fn hash(&self, key: String) -> Result<String, CredentialsError> {
        if !Self::fits(&key) {
            return Err(CredentialsError::UnfitKey);
        }
        let cost = self.cost;
        let hash = self
            .run(move || bcrypt::hash_with_result(key, cost))
            .await??;
        Ok(hash.format_for_version(bcrypt::Version::TwoB))
    }

    /// Whether the key is the one that was hashed. No key fits a stored text that is not a hash.
    pub(super) async fn verify(&self, key: String, hash: String) -> Result<bool, CredentialsError> {
        self.run(move || bcrypt::verify(key, &hash).unwrap_or(false))
            .await
    }

    /// Keeps all cores busy until what it returns is dropped.
    #[cfg(test)]
    pub(super) fn keep_busy(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(self.cores.available_permits()).unwrap();
        Arc::clone(&self.cores).try_acquire_many_owned(all).unwrap()
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CredentialsError> {
        let _slot = QueueSlot::take(&self.waiting)?;
        let core = Arc::clone(&self.cores)
            .acquire_owned()
            .await
            .map_err(|_| CredentialsError::ThreadLost)?;
        #[cfg(test)]
        self.runs.fetch_add(1, Ordering::Relaxed);
        // The thread cannot be stopped: it keeps its core even when the caller has gone.
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(core);
            result
        })
        .await
        .map_err(|_| CredentialsError::ThreadLost)
    }
}

/// One of [`MAX_WAITING`] slots in the queue, given back when dropped.
struct QueueSlot<'a>(&'a AtomicUsize);

impl<'a> QueueSlot<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, CredentialsError> {
        let slot = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            return Err(CredentialsError::Busy);
        }
        Ok(slot)
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
