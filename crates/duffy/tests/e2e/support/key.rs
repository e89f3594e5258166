//! SSH keys for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::tools;

/// The files of a key pair.
#[derive(Debug, Clone)]
pub struct SshKey {
    path: PathBuf,
    public: String,
}

impl SshKey {
    /// Creates an ed25519 key without a passphrase: `path` and `path.pub`.
    pub fn generate(path: &Path, comment: &str) -> Self {
        let status = Command::new(tools::openssh("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
            .arg(path)
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "ssh-keygen failed for {}", path.display());
        let public = fs::read_to_string(path.with_added_extension("pub")).unwrap();
        Self {
            path: path.to_owned(),
            public: public.trim_end().to_owned(),
        }
    }

    /// The file of the private key.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The public key as a line for authorized_keys, without the line break.
    pub fn public(&self) -> &str {
        &self.public
    }
}
