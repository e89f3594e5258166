//! Errors of simulated machines.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a simulated machine cannot be made, found, served or removed.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A file or directory of the cloud cannot be read or written.
    #[error("{path}: {action}: {source}")]
    File {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process serves the machines of this directory.
    #[error(
        "{0}: another process serves the machines in this directory; stop it, or give another directory"
    )]
    InUse(PathBuf),
    /// A machine's file has the wrong content.
    #[error("{path}: {reason}; remove the machine's directory to go on without the machine")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The name is not allowed for a machine.
    #[error(
        "machine name {0:?}: use 1 to 128 letters, digits, dots, dashes and underscores, and begin with a letter or digit"
    )]
    Name(String),
    /// There is no machine of this name.
    #[error("machine {0:?} does not exist")]
    Unknown(String),
    /// The machine cannot listen on its address.
    #[error(
        "machine {name:?}: cannot listen on {address}: {source}; free the port, or remove the machine's directory"
    )]
    Listen {
        /// The machine.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// No address is free.
    #[error("all loopback addresses for simulated machines are taken; destroy some machines")]
    Full,
    /// A key cannot be made.
    #[error("cannot make a host key: {0}")]
    Key(String),
    /// The cloud is shut down, or is shutting down.
    #[error("the simulated machines are shut down")]
    Down,
}

impl SimError {
    /// For `map_err`: adds the operation and the file.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// For `map_err`: the problem with a machine's file.
    pub(crate) fn damaged(path: PathBuf, reason: &impl ToString) -> Self {
        Self::Damaged {
            path,
            reason: reason.to_string(),
        }
    }
}
