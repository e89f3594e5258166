//! Nodes that keep failing: Duffy loses no machine, limits retries, and pools show the reason.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Lab, Pool, eventually};

/// Waits until a query has this result.
fn wait_for_sql(lab: &Lab, query: &'static str, expected: &str) {
    eventually(Duration::from_mins(1), query, || {
        let found = lab.sql(query);
        if found == expected {
            Ok(())
        } else {
            Err(found)
        }
    });
}

fn tasks() -> Value {
    json!({"tasks": {
        "attempts": 1, "repairs": 2, "repair-min": "1s", "repair-max": "1s",
        "pool-backoff-max": "2s",
    }})
}

fn failed_new_nodes_are_deprovisioned_and_replaced(mut lab: Lab) {
    let run = lab.start(&["run"]);
    // All nodes fail, until Duffy makes one attempt at a time for the pool.
    wait_for_sql(
        &lab,
        "SELECT cause FROM events WHERE pool = 'pool' AND node_id IS NULL ORDER BY id LIMIT 1",
        "pool-failing",
    );
    let why = lab.sql("SELECT detail FROM pool_states WHERE work = 'provisioning'");
    assert!(why.contains("simulated failure of provisioning"), "{why}");
    // The failed node was deprovisioned.
    let first = lab.admin().wait_state(&json!(1), "done");
    assert_eq!(first["active"], false);
    let error = first["data"]["error"]["detail"].as_str().unwrap();
    assert!(
        error.contains("simulated failure of provisioning"),
        "{error}"
    );
    assert_eq!(
        lab.sql("SELECT cause || ' ' || coalesce(to_state, '') FROM events WHERE node_id = 1 ORDER BY id")
            .lines()
            .collect::<Vec<_>>(),
        [
            "filled provisioning",
            "claimed provisioning",
            "failed failed",
            "repaired deprovisioning",
            "claimed deprovisioning",
            "deprovisioned done",
        ]
    );
    // Fix the mechanism.
    run.terminate();
    assert_eq!(run.wait_exit(Duration::from_secs(30)), 0);
    lab.site
        .reconfigure(&json!({"nodepools": {"concrete": {"pool": {
        "mechanism": {"simulated": {"provision-failure-rate": 0}}}}}}));
    let _run = lab.start(&["run"]);
    lab.tenant().wait_filled("pool", 2);
    wait_for_sql(
        &lab,
        "SELECT cause FROM events WHERE pool = 'pool' AND node_id IS NULL ORDER BY id DESC LIMIT 1",
        "pool-recovered",
    );
    assert_eq!(
        lab.sql("SELECT CAST(failures AS TEXT) FROM pool_states WHERE work = 'provisioning'"),
        "0"
    );
    wait_for_sql(
        &lab,
        "SELECT CAST(count(*) AS TEXT) FROM nodes WHERE retired_at IS NULL",
        "2",
    );
    lab.assert_consistent();
}

fn failing() -> [Pool; 1] {
    [Pool::simulated(
        "pool",
        2,
        &json!({"provision-failure-rate": 1}),
    )]
}

#[test]
fn failed_new_nodes_are_deprovisioned_and_replaced_on_postgres() {
    failed_new_nodes_are_deprovisioned_and_replaced(Lab::on_postgres(&failing(), &tasks()));
}

#[test]
fn failed_new_nodes_are_deprovisioned_and_replaced_on_sqlite() {
    failed_new_nodes_are_deprovisioned_and_replaced(Lab::on_sqlite(&failing(), &tasks()));
}

#[test]
fn repairs_of_a_reusable_node_are_limited() {
    let pool = Pool::simulated("metal", 1, &json!({"deprovision-failure-rate": 1}))
        .with(&json!({"reuse-nodes": {"rack": "r1"}}));
    let lab = Lab::on_sqlite(&[pool], &tasks());
    let _run = lab.start(&["run"]);
    let node = json!({"hostname": "m1.example.org", "ipaddr": "192.0.2.1", "reusable": true,
        "data": {"rack": "r1"}});
    let reply = lab.admin().call("POST", "nodes", Some(&node)).unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    let tenant = lab.tenant();
    tenant.wait_filled("metal", 1);
    tenant.retire(&tenant.request(&[("metal", 1)]));
    wait_for_sql(
        &lab,
        "SELECT CAST(state AS TEXT) || ' ' || repairs || ' ' || coalesce(retry_at, '-') FROM nodes",
        "failed 2 -",
    );
    assert_eq!(
        lab.sql("SELECT CAST(count(*) AS TEXT) FROM events WHERE cause = 'repaired'"),
        "2"
    );
    let detail =
        lab.sql("SELECT detail FROM events WHERE cause = 'failed' ORDER BY id DESC LIMIT 1");
    assert!(
        detail.contains("simulated failure of deprovisioning"),
        "{detail}"
    );
    assert_eq!(tenant.ask(&[("metal", 1)]).unwrap().status, 422);
}

#[test]
fn a_pool_that_hangs_leaves_slots_to_others() {
    let pools = [Pool::new("hanging", 4), Pool::new("other", 1)];
    let lab = Lab::on_postgres(&pools, &json!({"tasks": {"concurrency": 4}}));
    lab.site.pause("hanging", "provision");
    let _run = lab.start(&["run"]);
    let tenant = lab.tenant();
    tenant.wait_filled("other", 1);
    // The pool uses all the slots that it may use.
    wait_for_sql(
        &lab,
        "SELECT CAST(count(lease) AS TEXT) FROM nodes WHERE pool = 'hanging'",
        "2",
    );
    let session = tenant.request(&[("other", 1)]);
    tenant.retire(&session);
    tenant.wait_state(&session["nodes"][0]["id"], "done");
    tenant.wait_filled("other", 1);
    lab.site.resume("hanging", "provision");
    tenant.wait_filled("hanging", 4);
}
