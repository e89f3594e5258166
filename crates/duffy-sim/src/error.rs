//! What can go wrong with simulated machines.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a simulated machine could not be made, found, served or removed.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A file or directory of the cloud could not be read or written.
    #[error("{path}: {action}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process serves the machines of this directory.
    #[error(
        "{0}: another process serves the machines in this directory; stop it, or give another directory"
    )]
    InUse(PathBuf),
    /// A file of a machine does not hold what it should.
    #[error("{path}: {reason}; remove the machine's directory to do without it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The name cannot be a machine's.
    #[error(
        "machine name {0:?}: use 1 to 128 letters, digits, dots, dashes and underscores, and begin with a letter or digit"
    )]
    Name(String),
    /// There is no machine of this name.
    #[error("machine {0:?} does not exist")]
    Unknown(String),
    /// The machine's address cannot be listened on.
    #[error(
        "machine {name:?}: cannot listen on {address}: {source}; free the port, or remove the machine's directory"
    )]
    Listen {
        /// The machine.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// No address is left for another machine.
    #[error("all loopback addresses for simulated machines are taken; destroy some machines")]
    Full,
    /// A key could not be made.
    #[error("cannot make a host key: {0}")]
    Key(String),
    /// The faults asked for make no sense.
    #[error("faults: {0}")]
    Faults(String),
    /// The cloud was shut down, or is being so.
    #[error("the simulated machines are shut down")]
    Down,
    /// A fault that was asked for.
    #[error("machine {name:?}: simulated failure of {what}")]
    Simulated {
        /// The machine.
        name: String,
        /// What was made to fail.
        what: &'static str,
    },
}

impl SimError {
    /// For `map_err`: says what was tried on which file.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
