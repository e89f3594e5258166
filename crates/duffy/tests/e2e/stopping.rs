//! A worker that is told to stop: its playbook may end, unless it is told twice.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Lab, Pool, wait_for_log};

const SOON: Duration = Duration::from_secs(40);

#[test]
fn a_worker_lets_its_playbook_end_or_hands_the_nodes_back() {
    let pool = Pool::new("pool", 2).with(&json!({"run-parallel": false}));
    let lab = Lab::on_postgres(&[pool], &json!({"tasks": {"lease": "5m"}}));

    // Told once.
    lab.site.hold("pool", "provision");
    let worker = lab.start(&["worker"]);
    lab.site.wait_until_held("pool", "provision");
    worker.terminate();
    wait_for_log(&worker, "stopping when running work has ended");
    assert!(worker.is_running());
    lab.site.release("pool", "provision");
    assert_eq!(worker.wait_exit(SOON), 0);
    assert_eq!(lab.sql("SELECT state FROM nodes"), "ready\nready");

    // Told twice. The lease is long: only a worker that gives it back lets another one go on at once.
    let serve = lab.start(&["serve"]);
    let tenant = lab.tenant();
    let session = tenant.request(&[("pool", 2)]);
    lab.site.hold("pool", "deprovision");
    lab.site.hold("pool", "provision");
    let worker = lab.start(&["worker"]);
    tenant.retire(&session);
    lab.site.wait_until_held("pool", "deprovision");
    lab.site.wait_until_held("pool", "provision");
    worker.terminate();
    wait_for_log(&worker, "stopping when running work has ended");
    worker.terminate();
    let told = Instant::now();
    assert_eq!(worker.wait_exit(SOON), 0);
    assert!(told.elapsed() < Duration::from_secs(20), "{told:?}");
    let mut left = lab.site.scratch().processes();
    left.retain(|line| line.contains("ansible") || line.contains("machines.sh"));
    assert_eq!(left, [""; 0], "playbooks outlive their worker");
    assert_eq!(
        lab.sql(
            "SELECT state, attempts, coalesce(lease, 'free') FROM nodes \
             WHERE retired_at IS NULL ORDER BY id"
        ),
        "deprovisioning|0|free\ndeprovisioning|0|free\nprovisioning|0|free\nprovisioning|0|free"
    );
    lab.site.release("pool", "deprovision");
    lab.site.release("pool", "provision");
    let worker = lab.start(&["worker"]);
    tenant.wait_filled("pool", 2);
    for node in session["nodes"].as_array().unwrap() {
        tenant.wait_state(&node["id"], "done");
    }
    for program in [worker, serve] {
        program.terminate();
        assert_eq!(program.wait_exit(SOON), 0);
    }
}
