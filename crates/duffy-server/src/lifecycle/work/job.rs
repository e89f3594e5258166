//! A job of a worker under one lease.

use std::sync::atomic::AtomicBool;

use duffy_api::NodeState;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lease::LeaseKeeper;
use crate::db::nodes::NodeRow;
use crate::lifecycle::rules;
use crate::nodes::mechanism::MechanismNode;
use crate::nodes::mechanisms::Mechanism;

/// Work on nodes of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The pool's mechanism.
    pub mechanism: &'a Mechanism,
    /// The pool's name.
    pub pool: &'a str,
    /// The nodes' state during the work: `provisioning` or `deprovisioning`.
    pub state: NodeState,
    /// Renews the nodes' lease.
    pub keeper: &'a LeaseKeeper,
    /// When it began.
    pub begun: Instant,
    /// Whether the pool is in this worker's configuration.
    pub configured: bool,
    /// Set when the work on a node failed.
    pub failed: &'a AtomicBool,
    /// Is cancelled to stop the work.
    pub stop: &'a CancellationToken,
    /// Spreads the pause after a failure, from 0 to 1. It is the same for all nodes of a batch, so that they are
    /// retried together.
    pub jitter: f64,
}

/// How many nodes are connected to at the same time. Processes often may have only a thousand files open.
pub(crate) const AT_ONCE: usize = 64;

/// Returns a node as mechanisms see it.
pub(crate) fn mechanism_node(node: &NodeRow) -> MechanismNode {
    MechanismNode {
        id: node.id,
        hostname: node.hostname.clone(),
        ipaddr: node.ipaddr.clone(),
        data: without_notes(&node.data.0).into(),
    }
}

/// Returns a node's data without Duffy's own members, which playbooks never saw in the original.
fn without_notes(data: &Map<String, Value>) -> Map<String, Value> {
    let mut data = data.clone();
    data.shift_remove("error");
    data.shift_remove(rules::STALE_KEYS);
    data
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mechanisms_get_no_notes_of_our_own() {
        let kept = json!({"nodes_spec": {"pool": "p"}, "provision": {"error": "kept"}, "arch": 1});
        let mut data = kept.as_object().unwrap().clone();
        rules::record_error(
            &mut data,
            chrono::DateTime::default(),
            "{{ detail }}",
            Some("log"),
        );
        data.insert(rules::STALE_KEYS.into(), json!(true));
        assert_eq!(Value::Object(without_notes(&data)), kept);
    }
}
