//! A worker or server that is told to stop: its playbooks and requests may end, unless it is told twice.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{
    Api, Lab, Pool, Program, RawConnection, Reply, eventually, free_port, wait_for_log,
};

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
    // Those being provisioned may have failed before, for want of machines.
    assert_eq!(
        lab.sql(
            "SELECT state, CASE WHEN state = 'deprovisioning' THEN attempts END, \
             coalesce(lease, 'free') FROM nodes WHERE retired_at IS NULL ORDER BY id"
        ),
        "deprovisioning|0|free\ndeprovisioning|0|free\nprovisioning||free\nprovisioning||free"
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

/// A pool of two nodes that take long on SSH, their worker, and a server.
fn slow_nodes() -> (Lab, Program, Program) {
    let pool = Pool::simulated("pool", 2, &json!({"ssh-delay": "8s"}));
    let lab = Lab::on_postgres(&[pool], &json!({}));
    let worker = lab.start(&["worker"]);
    let serve = lab.start(&["serve"]);
    lab.tenant().wait_filled("pool", 2);
    (lab, worker, serve)
}

/// Nodes that keys are being put on, or have been.
fn lent(lab: &Lab) -> String {
    lab.sql("SELECT state FROM nodes WHERE state IN ('contextualizing', 'deployed')")
}

/// Asks for both nodes, does something while keys are being put on them, and returns the answer.
fn while_requested(lab: &Lab, act: impl FnOnce()) -> Result<Reply, String> {
    let tenant: Api = lab.tenant();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| tenant.ask(&[("pool", 2)]));
        eventually(SOON, "a session in the making", || {
            let states = lent(lab);
            if states == "contextualizing\ncontextualizing" {
                Ok(())
            } else {
                Err(states)
            }
        });
        act();
        asked.join().unwrap()
    })
}

#[test]
fn a_server_answers_what_it_has_begun_and_takes_no_more() {
    let (lab, _worker, serve) = slow_nodes();
    let mut idle = RawConnection::connect(lab.port()).unwrap();
    idle.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    idle.wait_for_reply();
    let reply = while_requested(&lab, || {
        serve.terminate();
        eventually(
            SOON,
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
            lent(&lab),
            "contextualizing\ncontextualizing",
            "at once, not with the last request"
        );
    });
    let reply = reply.unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(serve.wait_exit(SOON), 0);
    assert_eq!(lent(&lab), "deployed\ndeployed");
    lab.assert_consistent();
}

#[test]
fn what_a_stopped_server_leaves_undone_is_undone() {
    let (lab, _worker, serve) = slow_nodes();
    let reply = while_requested(&lab, || {
        serve.terminate();
        wait_for_log(&serve, "a second signal stops at once");
        serve.terminate();
        let told = Instant::now();
        assert_eq!(serve.wait_exit(SOON), 0);
        assert!(
            told.elapsed() < Duration::from_secs(5),
            "{:?}",
            told.elapsed()
        );
    });
    // Refused, if there was time to say so.
    assert!(
        reply.as_ref().map_or(true, |reply| reply.status == 503),
        "{reply:?}"
    );
    // It has undone what it began: the nodes are nobody's, without waiting for a lease to lapse.
    let leased =
        lab.sql("SELECT CAST(count(*) AS TEXT) FROM nodes WHERE state = 'contextualizing'");
    assert_eq!(leased, "0");
    // The worker takes the nodes back, without anybody's help.
    let _serve = lab.start(&["serve"]);
    lab.tenant().wait_filled("pool", 2);
    let active = lab.sql("SELECT CAST(count(*) AS TEXT) FROM sessions WHERE retired_at IS NULL");
    assert_eq!(active, "0");
    lab.assert_consistent();
}

#[test]
fn a_hangup_is_logged_and_stops_no_service() {
    let legacy = json!({"metaclient": {
        "port": free_port(), "usermap": {}, "poolmap": [{"pool": "pool"}]
    }});
    let lab = Lab::on_postgres(&[Pool::new("pool", 1)], &legacy);
    for command in ["serve", "worker", "serve-legacy"] {
        let program = lab.start(&[command]);
        program.signal(Signal::SIGHUP);
        wait_for_log(&program, "SIGHUP is ignored");
        program.terminate();
        assert_eq!(program.wait_exit(SOON), 0, "{command}");
    }
}
