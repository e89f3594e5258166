//! Private keys in files: read once, and again when a file has changed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use russh::keys::{Algorithm, PrivateKey, PublicKey};

use super::SshError;

/// No private key is larger than this.
const SIZE_LIMIT: u64 = 1 << 20;

/// A key of a file. Without its private half it can only be used through an agent that has it.
#[derive(Debug)]
pub(super) struct Identity {
    pub path: PathBuf,
    pub public: PublicKey,
    pub private: Option<Arc<PrivateKey>>,
}

/// A file's time of change and size.
type Stamp = (SystemTime, u64);

/// What a file held when it had this stamp: a key, or nothing of use.
type Known = (Stamp, Option<Arc<Identity>>);

/// The keys that were read.
#[derive(Debug, Default)]
pub(super) struct KeyRing {
    known: Mutex<HashMap<PathBuf, Known>>,
}

impl KeyRing {
    /// The keys of those files that exist and hold one that we can use.
    pub fn load(&self, paths: &[PathBuf]) -> Vec<Arc<Identity>> {
        paths.iter().filter_map(|path| self.get(path)).collect()
    }

    /// Makes sure that a file can be used, now or with an agent.
    pub fn check(path: &Path) -> Result<(), SshError> {
        let unusable = |reason: String| {
            SshError::Config(format!(
                "cannot use the SSH key {}: {reason}; correct ssh.identity-files",
                path.display()
            ))
        };
        match read_identity(path) {
            Ok(identity) if identity.private.is_some() => Ok(()),
            Ok(_) if std::env::var_os("SSH_AUTH_SOCK").is_some() => Ok(()),
            Ok(_) => Err(unusable(
                "it needs a passphrase or a device, and there is no agent to ask (SSH_AUTH_SOCK is not set)"
                    .to_owned(),
            )),
            Err(reason) => Err(unusable(reason)),
        }
    }

    fn get(&self, path: &Path) -> Option<Arc<Identity>> {
        let meta = fs::metadata(path)
            .or_else(|_| fs::metadata(public_path(path)))
            .ok()?;
        let stamp = (meta.modified().ok()?, meta.len());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, identity)) = known.get(path)
            && *then == stamp
        {
            return identity.clone();
        }
        let identity = match read_identity(path) {
            Ok(identity) => Some(Arc::new(identity)),
            Err(reason) => {
                tracing::debug!(path = %path.display(), reason, "SSH key passed over");
                None
            }
        };
        known.insert(path.to_owned(), (stamp, identity.clone()));
        identity
    }
}

/// Where the public half is kept.
fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn read_identity(path: &Path) -> Result<Identity, String> {
    let private = read_small(path).and_then(|text| {
        russh::keys::decode_secret_key(&text, None).map_err(|error| match error {
            russh::keys::Error::KeyIsEncrypted => "it needs a passphrase".to_owned(),
            other => other.to_string(),
        })
    });
    let reason = match private {
        Ok(key) if can_sign(&key) => {
            return Ok(Identity {
                path: path.to_owned(),
                public: key.public_key().clone(),
                private: Some(Arc::new(key)),
            });
        }
        Ok(_) => "its kind cannot be used from a file".to_owned(),
        Err(reason) => reason,
    };
    // An agent may have it, and then this says which of the agent's keys is meant.
    let encrypted = read_small(path)
        .ok()
        .and_then(|text| PrivateKey::from_openssh(&text).ok());
    let public = encrypted
        .map(|key| key.public_key().clone())
        .or_else(|| {
            let text = read_small(&public_path(path)).ok()?;
            PublicKey::from_openssh(text.trim()).ok()
        })
        .ok_or(reason)?;
    Ok(Identity {
        path: path.to_owned(),
        public,
        private: None,
    })
}

/// Keys on security devices are only named by their files.
fn can_sign(key: &PrivateKey) -> bool {
    !key.is_encrypted()
        && matches!(
            key.algorithm(),
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. }
        )
}

fn read_small(path: &Path) -> Result<String, String> {
    let meta = fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() || meta.len() > SIZE_LIMIT {
        return Err("it is not a file with a key".to_owned());
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}
