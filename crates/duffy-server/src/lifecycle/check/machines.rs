//! Machines and rows: the simulated ones can be listed, others only by those who made them.

use super::CheckReport;
use crate::context::Ctx;
use crate::db::snapshot::Snapshot;

#[cfg(not(feature = "tasks"))]
pub(super) fn look(_: &Ctx, _: &Snapshot, _: &mut CheckReport) {}

/// Compares the simulated machines with the rows of their pools.
#[cfg(feature = "tasks")]
pub(super) fn look(ctx: &Ctx, snapshot: &Snapshot, report: &mut CheckReport) {
    use std::collections::BTreeSet;

    use duffy_api::NodeState;
    use duffy_config::{Mechanism, NodePools};

    use super::{Finding, Invariant};
    use crate::nodes::simulated::{machine_name, simulated_directory};

    let lost = Invariant::NoMachineLost;
    let mut directories = BTreeSet::new();
    let mut pools = BTreeSet::new();
    for pool in ctx.config.nodepools.iter().flat_map(NodePools::concrete) {
        if let Mechanism::Simulated(settings) = &pool.mechanism {
            directories.extend(simulated_directory(settings));
            pools.insert(pool.name.as_str());
        } else {
            let message = "its machines are known to its playbooks only";
            report.note(Finding::new(lost, message).of_pool(&pool.name));
        }
    }
    let mut machines = BTreeSet::new();
    for directory in directories {
        match duffy_sim::list_machines(&directory) {
            Ok(names) => machines.extend(names),
            Err(error) => {
                report.note(Finding::new(lost, error.to_string()));
                return;
            }
        }
    }
    for node in &snapshot.nodes {
        let there = machines.remove(&machine_name(node.id));
        let of_simulated = node
            .pool
            .as_deref()
            .is_some_and(|pool| pools.contains(pool));
        let must = matches!(
            node.state.0,
            NodeState::Ready | NodeState::Contextualizing | NodeState::Deployed
        );
        if must && of_simulated && !there {
            let message = format!(
                "is {}, and its simulated machine does not exist",
                node.state.0
            );
            report.find(Finding::new(lost, message).of_node(node.id));
        }
        if there && node.state.0 == NodeState::Unused {
            let finding = Finding::new(lost, "is unused, and its simulated machine still exists");
            report.find(finding.of_node(node.id));
        }
    }
    for machine in machines {
        let message = format!("the simulated machine {machine} belongs to no node");
        report.find(Finding::new(lost, message));
    }
}
