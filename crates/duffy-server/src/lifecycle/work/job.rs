//! What a worker does under one lease: the nodes of a pool, and the mechanism.

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
    /// Of the pool.
    pub mechanism: &'a Mechanism,
    /// The pool's name.
    pub pool: &'a str,
    /// The nodes' state while it is done: `provisioning` or `deprovisioning`.
    pub state: NodeState,
    /// Holds the lease that the nodes are under.
    pub keeper: &'a LeaseKeeper,
    /// When it was begun.
    pub begun: Instant,
    /// Whether the pool is in this worker's configuration.
    pub configured: bool,
    /// Is cancelled to stop the work.
    pub stop: &'a CancellationToken,
    /// Spreads the pause after a failure, from 0 to 1: the same for all nodes of a batch, so
    /// that they come back together.
    pub jitter: f64,
}

/// How many nodes are reached at the same time: each takes a connection, and processes may
/// have a thousand files open, often no more.
pub(crate) const AT_ONCE: usize = 64;

/// A node as mechanisms see it.
pub(crate) fn mechanism_node(node: &NodeRow) -> MechanismNode {
    MechanismNode {
        id: node.id,
        hostname: node.hostname.clone(),
        ipaddr: node.ipaddr.clone(),
        data: without_notes(&node.data.0).into(),
    }
}

/// A node's data without what Duffy notes there for itself: playbooks of the original never see it.
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
