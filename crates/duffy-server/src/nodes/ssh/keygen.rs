//! Making key pairs.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

/// Writes a new Ed25519 key to `path`, for its owner only, and its public half to `path.pub`.
///
/// # Errors
/// When a file is there already or cannot be written.
pub fn generate_key(path: &Path) -> std::io::Result<()> {
    let other = std::io::Error::other;
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(other)?;
    let public = key.public_key().to_openssh().map_err(other)?;
    let private = key.to_openssh(LineEnding::LF).map_err(other)?;
    let mut public_path = path.as_os_str().to_owned();
    public_path.push(".pub");
    // The private half last: where it is, the other is too.
    std::fs::write(public_path, format!("{public}\n"))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(private.as_bytes())?;
    file.sync_all()
}
