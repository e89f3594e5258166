//! Concurrent requests: each node goes to one request, and no request waits for the nodes of another.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Lab, Pool, Program, run_concurrently};

/// The SSH delay of the nodes. Refused requests must be faster.
const SLOW: Duration = Duration::from_secs(8);

/// Fifty clients request the last ten nodes, which are slow.
fn last_ten_nodes(lab: &Lab) {
    let tenant = lab.tenant();
    let replies = run_concurrently(50, |_| {
        let start = Instant::now();
        let reply = tenant.ask(&[("pool", 1)]).unwrap();
        (reply, start.elapsed())
    });
    let (granted, refused): (Vec<_>, Vec<_>) = replies
        .into_iter()
        .partition(|(reply, _)| reply.status == 201);
    assert_eq!(granted.len(), 10, "{refused:?}");
    let nodes: BTreeSet<String> = granted
        .iter()
        .map(|(reply, _)| reply.json["session"]["nodes"][0]["id"].to_string())
        .collect();
    assert_eq!(nodes.len(), 10, "a node is in two sessions: {nodes:?}");
    assert!(granted.iter().all(|(_, took)| *took >= SLOW), "{granted:?}");
    for (reply, took) in refused {
        assert_eq!(
            (reply.status, &reply.json),
            (
                422,
                &json!({"detail": "can't reserve nodes: quantity=1 pool='pool'"})
            )
        );
        assert!(
            took < SLOW,
            "it waited for a node of another request: {took:?}"
        );
    }
    lab.assert_consistent();
}

/// Prepares ten slow nodes, which are not replaced.
fn with_ten_slow_nodes(mut lab: Lab) -> (Lab, Program) {
    let run = lab.start(&["run"]);
    lab.tenant().wait_filled("pool", 10);
    run.terminate();
    assert_eq!(run.wait_exit(Duration::from_secs(30)), 0);
    lab.site.reconfigure(
        &json!({"nodepools": {"concrete": {"pool": {"fill-level": null,
        "mechanism": {"simulated": {"ssh-delay": SLOW.as_secs()}}}}}}),
    );
    let run = lab.start(&["run"]);
    (lab, run)
}

fn pools() -> [Pool; 1] {
    [Pool::simulated("pool", 10, &json!({}))]
}

#[test]
fn the_last_nodes_go_to_one_client_each_on_postgresql() {
    let (lab, _run) = with_ten_slow_nodes(Lab::on_postgres(&pools(), &json!({})));
    last_ten_nodes(&lab);
}

#[test]
fn the_last_nodes_go_to_one_client_each_on_sqlite() {
    let (lab, _run) = with_ten_slow_nodes(Lab::on_sqlite(&pools(), &json!({})));
    last_ten_nodes(&lab);
}

/// Sends a hundred requests at the same time, each for one or two nodes, with a quota of seven.
fn quota_holds(lab: &Lab) {
    let tenant = lab.tenant();
    tenant.wait_filled("pool", 10);
    let replies = run_concurrently(100, |number| {
        let quantity = if number % 3 == 0 { 2 } else { 1 };
        (quantity, tenant.ask(&[("pool", quantity)]).unwrap())
    });
    let mut held = 0;
    for (quantity, reply) in &replies {
        match reply.status {
            201 => held += quantity,
            403 => {
                let detail = reply.json["detail"].as_str().unwrap();
                assert!(detail.starts_with("quota exceeded"), "{detail}");
            }
            _ => panic!("{reply:?}"),
        }
    }
    assert_eq!(held, 7, "the quota");
    let sessions = tenant.get("sessions");
    let sessions = sessions["sessions"].as_array().unwrap();
    let nodes = sessions
        .iter()
        .map(|session| session["nodes"].as_array().unwrap().len());
    assert_eq!(nodes.sum::<usize>(), 7);
    lab.assert_consistent();
}

#[test]
fn concurrent_requests_do_not_exceed_a_quota_on_postgresql() {
    let quota = json!({"defaults": {"node-quota": 7}});
    let lab = Lab::on_postgres(&pools(), &quota);
    let _run = lab.start(&["run"]);
    quota_holds(&lab);
}

#[test]
fn concurrent_requests_do_not_exceed_a_quota_on_sqlite() {
    let quota = json!({"defaults": {"node-quota": 7}});
    let lab = Lab::on_sqlite(&pools(), &quota);
    let _run = lab.start(&["run"]);
    quota_holds(&lab);
}
