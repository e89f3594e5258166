//! What is remembered of earlier checks, bounded in size.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Most keys that are remembered as right; far more than there are tenants.
const MAX_VERIFIED: usize = 10_000;

/// Most keys that are remembered as wrong. They have a place of their own, so that a flood of
/// wrong keys drives out no right one.
const MAX_REFUSED: usize = 1_000;

/// Stands for a tenant's name, a key and the hash it was checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

pub(super) struct Memory {
    secret: [u8; 32],
    verified: Mutex<Recent>,
    refused: Mutex<Recent>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            secret: rand::random(),
            verified: Mutex::new(Recent::new(MAX_VERIFIED)),
            refused: Mutex::new(Recent::new(MAX_REFUSED)),
        }
    }

    pub(super) fn digest(&self, name: &str, key: &str, stored: Option<&str>) -> Digest {
        // Never fails: any key length fits; and were it to, nothing would ever be found again.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else {
            return Digest(rand::random());
        };
        for part in [Some(name), Some(key), stored] {
            mac.update(&[u8::from(part.is_some())]);
            let part = part.unwrap_or_default();
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Digest(mac.finalize().into_bytes().into())
    }

    /// How an earlier check of the same ended, when it is remembered.
    pub(super) fn recall(&self, digest: &Digest) -> Option<bool> {
        if lock(&self.verified).touch(digest) {
            Some(true)
        } else {
            lock(&self.refused).touch(digest).then_some(false)
        }
    }

    pub(super) fn remember(&self, digest: Digest, verified: bool) {
        let recent = if verified {
            &self.verified
        } else {
            &self.refused
        };
        lock(recent).insert(digest);
    }
}

fn lock(recent: &Mutex<Recent>) -> std::sync::MutexGuard<'_, Recent> {
    recent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A set that forgets what was not asked for lately: two generations, of which the older one goes
/// when the younger one is full.
struct Recent {
    limit: usize,
    young: HashSet<Digest>,
    old: HashSet<Digest>,
}

impl Recent {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            young: HashSet::new(),
            old: HashSet::new(),
        }
    }

    fn touch(&mut self, digest: &Digest) -> bool {
        if self.young.contains(digest) {
            return true;
        }
        let known = self.old.contains(digest);
        if known {
            self.insert(*digest);
        }
        known
    }

    fn insert(&mut self, digest: Digest) {
        if self.young.len() >= self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_counts() {
        let memory = Memory::new();
        let digest = memory.digest("a", "bc", Some("hash"));
        assert_eq!(digest, memory.digest("a", "bc", Some("hash")));
        assert_ne!(digest, memory.digest("ab", "c", Some("hash")));
        assert_ne!(digest, memory.digest("a", "bc", Some("other")));
        assert_ne!(
            memory.digest("a", "bc", None),
            memory.digest("a", "bc", Some(""))
        );
        assert_ne!(digest, Memory::new().digest("a", "bc", Some("hash")));
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let memory = Memory::new();
        let used = memory.digest("used", "key", None);
        memory.remember(used, true);
        for n in 0..3 * MAX_VERIFIED {
            assert_eq!(memory.recall(&used), Some(true));
            memory.remember(memory.digest("unused", &n.to_string(), None), true);
        }
        assert_eq!(memory.recall(&memory.digest("unused", "0", None)), None);
        let recent = lock(&memory.verified);
        assert!(recent.young.len() + recent.old.len() <= MAX_VERIFIED);
    }

    #[test]
    fn wrong_keys_drive_out_no_right_one() {
        let memory = Memory::new();
        let right = memory.digest("tenant", "key", None);
        memory.remember(right, true);
        for n in 0..3 * MAX_VERIFIED {
            memory.remember(memory.digest("tenant", &n.to_string(), None), false);
        }
        assert_eq!(memory.recall(&right), Some(true));
    }
}
