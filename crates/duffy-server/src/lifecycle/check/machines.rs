//! Compares machines with rows. Only simulated machines can be listed.

use std::collections::BTreeSet;

use duffy_api::NodeState;
use duffy_config::Mechanism;

use super::report::{CheckReport, Finding, Invariant};
use crate::context::Ctx;
use crate::db::snapshot::Snapshot;
use crate::lifecycle::pools::configured_pools;
use crate::nodes::simulated::{machine_name, simulated_directory};

/// Returns the names of the simulated machines that exist, or why they cannot be listed.
pub(super) fn list(ctx: &Ctx) -> Result<BTreeSet<String>, String> {
    let directories: BTreeSet<_> = configured_pools(ctx)
        .filter_map(|pool| match &pool.mechanism {
            Mechanism::Simulated(settings) => simulated_directory(settings),
            Mechanism::Ansible(_) => None,
        })
        .collect();
    let mut machines = BTreeSet::new();
    for directory in directories {
        let names = duffy_sim::list_machines(&directory);
        machines.extend(names.map_err(|error| error.to_string())?);
    }
    Ok(machines)
}

/// Compares the simulated machines with the rows of their pools. `before` lists the machines before the snapshot:
/// machines that were made or removed meanwhile are not reported.
pub(super) fn look(
    ctx: &Ctx,
    snapshot: &Snapshot,
    before: &Result<BTreeSet<String>, String>,
    report: &mut CheckReport,
) {
    let lost = Invariant::NoMachineLost;
    let mut pools = BTreeSet::new();
    for pool in configured_pools(ctx) {
        if let Mechanism::Simulated(_) = &pool.mechanism {
            pools.insert(pool.name.as_str());
        } else {
            let message = "its machines are known to its playbooks only";
            report.note(Finding::new(lost, message).of_pool(&pool.name));
        }
    }
    let after = list(ctx);
    let (before, after) = match (before, &after) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(error), _) | (_, Err(error)) => {
            report.note(Finding::new(lost, error.as_str()));
            return;
        }
    };
    let mut all_along: BTreeSet<&String> = before.intersection(after).collect();
    for node in &snapshot.nodes {
        let name = machine_name(node.id);
        let stayed = all_along.remove(&name);
        let of_simulated = node
            .pool
            .as_deref()
            .is_some_and(|pool| pools.contains(pool));
        let state = node.state.0;
        let must = matches!(
            state,
            NodeState::Ready | NodeState::Contextualizing | NodeState::Deployed
        );
        if must && of_simulated && !before.contains(&name) && !after.contains(&name) {
            let message = format!("is {state}, and its simulated machine does not exist");
            report.find(Finding::new(lost, message).of_node(node.id));
        }
        if stayed && state == NodeState::Unused {
            let finding = Finding::new(lost, "is unused, and its simulated machine still exists");
            report.find(finding.of_node(node.id));
        }
    }
    for machine in all_along {
        let message = format!("the simulated machine {machine} belongs to no node");
        report.find(Finding::new(lost, message));
    }
}
