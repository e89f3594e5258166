//! Killed processes: other processes continue their work or roll it back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Lab, Pool, SshEndpoint, eventually, wait_for_log};

/// The lease, and the time that a busy host may need until a worker notices that it has expired.
const LEASE: Duration = Duration::from_secs(5 + 15);

/// Waits until all processes of playbooks have ended.
fn wait_for_playbooks_to_end(lab: &Lab) {
    eventually(LEASE, "the end of all playbooks", || {
        let mut left = lab.site.scratch().processes();
        left.retain(|line| line.contains("ansible") || line.contains("machines.sh"));
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.join("\n"))
        }
    });
}

#[test]
fn the_next_worker_continues_the_work_of_a_killed_one() {
    let pool = Pool::new("pool", 2).with(&json!({"run-parallel": false}));
    let lab = Lab::on_postgres(&[pool], &json!({}));
    let _serve = lab.start(&["serve"]);
    let tenant = lab.tenant();

    lab.site.pause("pool", "provision");
    let worker = lab.start(&["worker"]);
    lab.site.wait_until_paused("pool", "provision");
    worker.kill9();
    let killed = Instant::now();
    wait_for_playbooks_to_end(&lab);
    lab.site.resume("pool", "provision");
    let worker = lab.start(&["worker"]);
    wait_for_log(&worker, "playbook started");
    assert!(killed.elapsed() < LEASE, "{:?}", killed.elapsed());
    tenant.wait_filled("pool", 2);
    // The same nodes keep their machines.
    assert_eq!(lab.site.taken("pool"), 2);
    let twice = ["provision 1", "provision 2", "provision 1", "provision 2"];
    // The killed playbook may have waited at its first node.
    let events = lab.site.events("pool");
    assert!(
        events == twice || events == [&twice[..1], &twice[2..]].concat(),
        "{events:?}"
    );

    let session = tenant.request(&[("pool", 2)]);
    lab.site.pause("pool", "deprovision");
    lab.site.pause("pool", "provision");
    tenant.retire(&session);
    lab.site.wait_until_paused("pool", "deprovision");
    worker.kill9();
    wait_for_playbooks_to_end(&lab);
    lab.site.resume("pool", "deprovision");
    lab.site.resume("pool", "provision");
    let _worker = lab.start(&["worker"]);
    for node in session["nodes"].as_array().unwrap() {
        tenant.wait_state(&node["id"], "done");
    }
    tenant.wait_filled("pool", 2);
    assert_eq!(lab.site.taken("pool"), 2);
    assert_eq!(
        lab.sql("SELECT count(*)::text FROM nodes"),
        "4",
        "two nodes, and two replacements"
    );
    lab.assert_consistent();
}

/// Two pools of simulated nodes. The SSH delay of `slow` exceeds all timeouts.
fn quick_and_slow() -> [Pool; 2] {
    let slow = json!({"ssh-delay": "1m", "directory": "slow-nodes"});
    [
        Pool::simulated("quick", 1, &json!({"directory": "quick-nodes"})),
        Pool::simulated("slow", 1, &slow),
    ]
}

/// Requests a node of each pool, and kills the server when the quick node has the key. Returns the nodes, and the SSH server of the quick
/// one.
fn kill_while_contextualizing(
    lab: &Lab,
    serve: &crate::support::Program,
) -> (Vec<Value>, SshEndpoint) {
    let tenant = lab.tenant();
    tenant.wait_filled("quick", 1);
    tenant.wait_filled("slow", 1);
    let nodes = tenant.nodes();
    let quick = nodes.iter().find(|node| node["pool"] == "quick").unwrap();
    let endpoint = SshEndpoint::of(quick);
    let scratch = lab.site.scratch().path();
    std::thread::scope(|scope| {
        let request = scope.spawn(|| tenant.ask(&[("quick", 1), ("slow", 1)]));
        eventually(Duration::from_secs(20), "the key on the quick node", || {
            let logged_in = endpoint.lets_in(scratch, lab.site.tenant_key());
            logged_in.then_some(()).ok_or_else(|| "no login".to_owned())
        });
        serve.kill9();
        request.join().unwrap().unwrap_err();
    });
    (nodes, endpoint)
}

#[test]
fn any_worker_rolls_back_an_unfinished_request() {
    let settings = json!({"ssh": {"timeout": "8s", "connect-timeout": "8s"}});
    let lab = Lab::on_postgres(&quick_and_slow(), &settings);
    let serve = lab.start(&["serve"]);
    let _worker = lab.start(&["worker"]);
    let (nodes, endpoint) = kill_while_contextualizing(&lab, &serve);
    let killed = Instant::now();
    eventually(LEASE, "the session to be rolled back", || {
        let sessions = lab.sql("SELECT id FROM sessions WHERE retired_at IS NULL");
        let nodes = lab.sql("SELECT id FROM nodes WHERE state = 'contextualizing'");
        if sessions.is_empty() && nodes.is_empty() {
            Ok(())
        } else {
            Err(format!("sessions {sessions}, nodes {nodes}"))
        }
    });
    assert!(killed.elapsed() < LEASE);
    let _serve = lab.start(&["serve"]);
    let tenant = lab.tenant();
    for node in &nodes {
        tenant.wait_state(&node["id"], "done");
    }
    assert!(!endpoint.lets_in(lab.site.scratch().path(), lab.site.tenant_key()));
    tenant.wait_filled("quick", 1);
    tenant.wait_filled("slow", 1);
    lab.assert_consistent();
}

#[test]
fn a_killed_process_on_sqlite_continues_after_a_restart() {
    let settings = json!({"ssh": {"timeout": "8s", "connect-timeout": "8s"}});
    let lab = Lab::on_sqlite(&quick_and_slow(), &settings);
    let run = lab.start(&["run"]);
    let (nodes, endpoint) = kill_while_contextualizing(&lab, &run);
    let _run = lab.start(&["run"]);
    let tenant = lab.tenant();
    for node in &nodes {
        tenant.wait_state(&node["id"], "done");
    }
    assert!(!endpoint.lets_in(lab.site.scratch().path(), lab.site.tenant_key()));
    assert_eq!(tenant.get("sessions")["sessions"], json!([]));
    tenant.wait_filled("quick", 1);
    tenant.wait_filled("slow", 1);
    lab.assert_consistent();
}
