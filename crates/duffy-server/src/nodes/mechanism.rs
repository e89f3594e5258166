//! What every mechanism gets and returns.
//!
//! A mechanism knows nothing of pools' nodes, sessions and the database. It gets nodes, and returns results as they came
//! from outside. [`match_provisioned`] and [`match_deprovisioned`] decide which node each result belongs to.

mod matching;

use std::time::Duration;

use serde_json::{Map, Value};
use thiserror::Error;

pub use matching::{match_deprovisioned, match_provisioned, result_hostname};

/// A node as mechanisms see it.
#[derive(Debug, Clone, PartialEq)]
pub struct MechanismNode {
    /// Its key in the database.
    pub id: i64,
    /// Its name, once it has one.
    pub hostname: Option<String>,
    /// Its address, once it has one.
    pub ipaddr: Option<String>,
    /// What is stored with it; `provision` in it is the result of its provisioning.
    pub data: Value,
}

/// The result for one node: an object with at least `ipaddr` in it, see [`match_provisioned`].
pub type NodeResult = Map<String, Value>;

/// Cuts a text after this many characters.
pub(crate) fn shorten(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Why a mechanism has no results. Each message is one line; [`MechanismError::log`] has the lines that led to it.
#[derive(Debug, Error)]
pub enum MechanismError {
    /// It ran and failed.
    #[error("{detail}")]
    Failed {
        /// What failed, in one line.
        detail: String,
        /// The last lines of its output.
        log: String,
    },
    /// It took too long, and was stopped with everything that it had started.
    #[error("not done within {after:?} and stopped; raise the timeout if it needs longer")]
    Deadline {
        /// The time that it had.
        after: Duration,
        /// The last lines of its output.
        log: String,
    },
    /// The caller stopped it, with everything that it had started.
    #[error("stopped before it was done")]
    Stopped,
    /// It ended well, but its result cannot be used.
    #[error("{detail}")]
    BadResult {
        /// What is wrong with it, in one line.
        detail: String,
        /// The last lines of its output.
        log: String,
    },
    /// It could not run at all.
    #[error("{detail}")]
    Setup {
        /// What is missing, and what to do, in one line.
        detail: String,
    },
}

impl MechanismError {
    /// The last lines of output, without a newline at the end; empty if there was none.
    pub fn log(&self) -> &str {
        match self {
            Self::Failed { log, .. } | Self::Deadline { log, .. } | Self::BadResult { log, .. } => {
                log
            }
            Self::Stopped | Self::Setup { .. } => "",
        }
    }
}
