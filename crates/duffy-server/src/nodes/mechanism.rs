//! What makes machines out of nodes, and takes them down again: one trait, a file for each kind.
//!
//! A mechanism knows nothing of pools, sessions and the database. It gets nodes, answers with results as they came from
//! outside, and [`match_provisioned`] and [`match_deprovisioned`] judge which node each result belongs to.

mod matching;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

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

/// A way to make and take down machines.
#[async_trait]
pub trait Mechanism: Send + Sync + Debug {
    /// Makes machines out of nodes. The results stand in the order of the nodes. They are as the outside gave them: too
    /// few, too many or nonsense; [`match_provisioned`] sorts that out, node by node.
    async fn provision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError>;

    /// Takes machines down. The results name the nodes for which that worked; [`match_deprovisioned`] finds them.
    async fn deprovision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError>;

    /// Says at the start, before any node is touched, what would keep this mechanism from working.
    fn check(&self) -> Result<(), MechanismError>;
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
    /// It took longer than it may, and was stopped with all that it had started.
    #[error("not done within {after:?} and stopped; raise the timeout if it needs longer")]
    Deadline {
        /// The time that it had.
        after: Duration,
        /// The last lines of its output.
        log: String,
    },
    /// It was told to stop, and all that it had started was stopped as well.
    #[error("stopped before it was done")]
    Stopped,
    /// It ran well, but what it gave back cannot be used.
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
    /// The last lines of output, without a newline at the end; empty where there was none.
    pub fn log(&self) -> &str {
        match self {
            Self::Failed { log, .. } | Self::Deadline { log, .. } | Self::BadResult { log, .. } => {
                log
            }
            Self::Stopped | Self::Setup { .. } => "",
        }
    }
}
