//! Key pairs in files: writes them, and reads them once, and again when a file has changed.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};

use super::SshError;
use super::config::home_directory;
use super::profile::usual_identities;
use super::survey::Stamp;

/// No private key is larger than this.
const SIZE_LIMIT: u64 = 1 << 20;

/// A key to log in with. Without its private half it can only be used through an agent that has it.
#[derive(Debug)]
pub(super) struct Identity {
    /// For messages.
    pub name: String,
    pub public: PublicKey,
    pub private: Option<Arc<PrivateKey>>,
}

/// What a file contained when it had this stamp: a key, or nothing of use.
type Known = (Stamp, Option<Arc<Identity>>);

/// The keys that were read.
#[derive(Debug, Default)]
pub(super) struct KeyRing(Mutex<HashMap<PathBuf, Known>>);

impl KeyRing {
    /// The keys of those files that exist and hold one that Duffy's own client can use.
    pub fn load(&self, paths: &[PathBuf]) -> Vec<Arc<Identity>> {
        paths.iter().filter_map(|path| self.get(path)).collect()
    }

    /// Checks that a file can be used, now or with an agent.
    pub fn check(path: &Path) -> Result<(), SshError> {
        let reason = match read_identity(path) {
            Ok(identity) if identity.private.is_some() => return Ok(()),
            Ok(_) if std::env::var_os("SSH_AUTH_SOCK").is_some() => return Ok(()),
            Ok(_) => "it needs a passphrase or a device, and there is no agent to ask (SSH_AUTH_SOCK is not set)"
                .to_owned(),
            Err(reason) => reason,
        };
        let path = path.display();
        Err(SshError::Config(format!(
            "cannot use the SSH key {path}: {reason}; correct ssh.identity-files"
        )))
    }

    fn get(&self, path: &Path) -> Option<Arc<Identity>> {
        let stamp = Stamp::of(path).or_else(|| Stamp::of(&public_path(path)))?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, identity)) = known.get(path)
            && *then == stamp
        {
            return identity.clone();
        }
        let identity = read_identity(path)
            .inspect_err(
                |reason| tracing::debug!(path = %path.display(), reason, "SSH key skipped"),
            )
            .ok()
            .map(Arc::new);
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
    let identity = |public: PublicKey, private: Option<PrivateKey>| Identity {
        name: path.display().to_string(),
        public,
        private: private.map(Arc::new),
    };
    let reason = match private {
        Ok(key) if can_sign(&key) => return Ok(identity(key.public_key().clone(), Some(key))),
        Ok(_) => "its kind cannot be used from a file".to_owned(),
        Err(reason) => reason,
    };
    // An agent may have the private half. Then the public half says which of the agent's keys it is.
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
    Ok(identity(public, None))
}

/// A file names a key on a security device, but does not contain it.
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

/// Duffy's own public keys: of the configured identities, or of the usual ones.
pub fn public_keys(identity_files: &[PathBuf]) -> Vec<String> {
    let usual = match home_directory() {
        Ok(home) if identity_files.is_empty() => usual_identities(&home),
        _ => Vec::new(),
    };
    let identities = identity_files.iter().chain(&usual);
    identities
        .filter_map(|path| fs::read_to_string(public_path(path)).ok())
        .map(|text| text.trim().to_owned())
        .filter(|key| !key.is_empty())
        .collect()
}

/// Writes a new Ed25519 key to `path`, for its owner only, and its public half to `path.pub`.
///
/// # Errors
/// When a file exists already or cannot be written.
pub fn generate_key(path: &Path) -> io::Result<()> {
    let other = io::Error::other;
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(other)?;
    let public = key.public_key().to_openssh().map_err(other)?;
    let private = key.to_openssh(LineEnding::LF).map_err(other)?;
    // The private half is written last: where it exists, the public half exists too.
    fs::write(public_path(path), format!("{public}\n"))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(private.as_bytes())?;
    file.sync_all()
}
