//! Stopping workers and servers: the first signal lets playbooks and requests end, the second one stops them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{
    Api, Lab, Pool, Program, RawConnection, Reply, eventually, free_port, wait_for_log,
};

const TIMEOUT: Duration = Duration::from_secs(40);

#[test]
fn a_stopping_worker_completes_its_playbook_or_hands_the_nodes_back() {
    let pool = Pool::new("pool", 2).with(&json!({"run-parallel": false}));
    let lab = Lab::on_postgres(&[pool], &json!({"tasks": {"lease": "5m"}}));

    // One signal.
    lab.site.pause("pool", "provision");
    let worker = lab.start(&["worker"]);
    lab.site.wait_until_paused("pool", "provision");
    worker.terminate();
    wait_for_log(&worker, "stopping when running work has ended");
    assert!(worker.is_running());
    lab.site.resume("pool", "provision");
    assert_eq!(worker.wait_exit(TIMEOUT), 0);
    assert_eq!(lab.sql("SELECT state FROM nodes"), "ready\nready");

    // Two signals. The lease is long: another worker can only continue immediately if this one hands it back.
    let serve = lab.start(&["serve"]);
    let tenant = lab.tenant();
    let session = tenant.request(&[("pool", 2)]);
    lab.site.pause("pool", "deprovision");
    lab.site.pause("pool", "provision");
    let worker = lab.start(&["worker"]);
    tenant.retire(&session);
    lab.site.wait_until_paused("pool", "deprovision");
    lab.site.wait_until_paused("pool", "provision");
    worker.terminate();
    wait_for_log(&worker, "stopping when running work has ended");
    worker.terminate();
    let signaled = Instant::now();
    assert_eq!(worker.wait_exit(TIMEOUT), 0);
    assert!(signaled.elapsed() < Duration::from_secs(20), "{signaled:?}");
    let mut left = lab.site.scratch().processes();
    left.retain(|line| line.contains("ansible") || line.contains("machines.sh"));
    assert_eq!(left, [""; 0], "playbooks outlived their worker");
    // The nodes in provisioning may have failed before, because there are no machines.
    assert_eq!(
        lab.sql(
            "SELECT state, CASE WHEN state = 'deprovisioning' THEN attempts END, \
             coalesce(lease, 'free') FROM nodes WHERE retired_at IS NULL ORDER BY id"
        ),
        "deprovisioning|0|free\ndeprovisioning|0|free\nprovisioning||free\nprovisioning||free"
    );
    lab.site.resume("pool", "deprovision");
    lab.site.resume("pool", "provision");
    let worker = lab.start(&["worker"]);
    tenant.wait_filled("pool", 2);
    for node in session["nodes"].as_array().unwrap() {
        tenant.wait_state(&node["id"], "done");
    }
    for program in [worker, serve] {
        program.terminate();
        assert_eq!(program.wait_exit(TIMEOUT), 0);
    }
}

/// Starts a worker and a server, with a pool of two nodes with slow SSH.
fn slow_nodes() -> (Lab, Program, Program) {
    let pool = Pool::simulated("pool", 2, &json!({"ssh-delay": "8s"}));
    let lab = Lab::on_postgres(&[pool], &json!({}));
    let worker = lab.start(&["worker"]);
    let serve = lab.start(&["serve"]);
    lab.tenant().wait_filled("pool", 2);
    (lab, worker, serve)
}

/// Returns the states of contextualizing and deployed nodes.
fn states_in_sessions(lab: &Lab) -> String {
    lab.sql("SELECT state FROM nodes WHERE state IN ('contextualizing', 'deployed')")
}

/// Requests both nodes, and calls `action` while Duffy installs keys on them. Returns the reply.
fn while_requested(lab: &Lab, action: impl FnOnce()) -> Result<Reply, String> {
    let tenant: Api = lab.tenant();
    std::thread::scope(|scope| {
        let request = scope.spawn(|| tenant.ask(&[("pool", 2)]));
        eventually(TIMEOUT, "an unfinished session", || {
            let states = states_in_sessions(lab);
            if states == "contextualizing\ncontextualizing" {
                Ok(())
            } else {
                Err(states)
            }
        });
        action();
        request.join().unwrap()
    })
}

#[test]
fn a_stopping_server_completes_its_requests_and_accepts_no_more() {
    let (lab, _worker, serve) = slow_nodes();
    let mut idle = RawConnection::connect(lab.port()).unwrap();
    idle.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    idle.wait_for_reply();
    let reply = while_requested(&lab, || {
        serve.terminate();
        eventually(
            TIMEOUT,
            "idle connections to be closed, and no new ones",
            || {
                if idle.is_closed() && RawConnection::connect(lab.port()).is_err() {
                    Ok(())
                } else {
                    Err("not yet".to_owned())
                }
            },
        );
        assert_eq!(
            states_in_sessions(&lab),
            "contextualizing\ncontextualizing",
            "it waited for the last request"
        );
    });
    let reply = reply.unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(serve.wait_exit(TIMEOUT), 0);
    assert_eq!(states_in_sessions(&lab), "deployed\ndeployed");
    lab.assert_consistent();
}

#[test]
fn a_stopped_server_rolls_back_unfinished_requests() {
    let (lab, _worker, serve) = slow_nodes();
    let reply = while_requested(&lab, || {
        serve.terminate();
        wait_for_log(&serve, "a second signal stops at once");
        serve.terminate();
        let signaled = Instant::now();
        assert_eq!(serve.wait_exit(TIMEOUT), 0);
        assert!(
            signaled.elapsed() < Duration::from_secs(5),
            "{:?}",
            signaled.elapsed()
        );
    });
    // The reply is 503 or lost.
    assert!(
        reply.as_ref().map_or(true, |reply| reply.status == 503),
        "{reply:?}"
    );
    // The server has rolled the request back: no node waits for a lease to expire.
    let leased =
        lab.sql("SELECT CAST(count(*) AS TEXT) FROM nodes WHERE state = 'contextualizing'");
    assert_eq!(leased, "0");
    // The worker deprovisions the nodes.
    let _serve = lab.start(&["serve"]);
    lab.tenant().wait_filled("pool", 2);
    let active = lab.sql("SELECT CAST(count(*) AS TEXT) FROM sessions WHERE retired_at IS NULL");
    assert_eq!(active, "0");
    lab.assert_consistent();
}

#[test]
fn sighup_is_logged_and_ignored() {
    let legacy = json!({"metaclient": {
        "port": free_port(), "usermap": {}, "poolmap": [{"pool": "pool"}]
    }});
    let lab = Lab::on_postgres(&[Pool::new("pool", 1)], &legacy);
    for command in ["serve", "worker", "serve-legacy"] {
        let program = lab.start(&[command]);
        program.signal(Signal::SIGHUP);
        wait_for_log(&program, "SIGHUP is ignored");
        program.terminate();
        assert_eq!(program.wait_exit(TIMEOUT), 0, "{command}");
    }
}
