//! Held connections to ready nodes, and probes: a dead node is found before a session gets it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Lab, Pool, Program, SshNode, eventually};

const LONG: Duration = Duration::from_mins(1);

/// Starts a server and a worker with one pool.
fn lab(pool: Pool, ssh: &Value) -> Lab {
    Lab::on_postgres(
        &[pool.with(&json!({"run-parallel": false}))],
        &json!({"ssh": ssh}),
    )
}

fn wait_held(lab: &Lab, connections: usize) {
    eventually(LONG, "held connections", || {
        let open: usize = lab.site.nodes().map(SshNode::open_connections).sum();
        if open == connections {
            Ok(())
        } else {
            Err(format!("{open} connections"))
        }
    });
}

/// Waits until the server holds connections, after the worker has logged in to each node and closed its connection.
fn wait_held_after_worker(lab: &Lab, connections: usize) {
    eventually(LONG, "the server's logins", || {
        let logins = logins(lab);
        (logins >= 2 * connections)
            .then_some(())
            .ok_or(logins.to_string())
    });
    wait_held(lab, connections);
}

/// Starts a server that holds connections to all nodes of a pool. The worker that filled the pool has ended.
fn serve_filled(nodes: u16) -> (Lab, Program) {
    let lab = lab(Pool::new("pool", nodes), &json!({}));
    let serve = lab.start(&["serve"]);
    let worker = lab.start(&["worker"]);
    lab.tenant().wait_filled("pool", nodes.into());
    wait_held_after_worker(&lab, nodes.into());
    worker.terminate();
    worker.wait_exit(LONG);
    (lab, serve)
}

fn logins(lab: &Lab) -> usize {
    lab.site.nodes().map(SshNode::logins).sum()
}

#[test]
fn a_session_needs_no_login_to_nodes_with_held_connections() {
    let (lab, serve) = serve_filled(2);
    let before = logins(&lab);

    let session = lab.tenant().request(&[("pool", 2)]);
    assert_eq!(logins(&lab), before, "{}", serve.log());
    // No connection of Duffy stays on a node that a tenant has.
    wait_held(&lab, 0);
    let key = lab.site.tenant_key();
    assert!(lab.site.nodes().all(|node| node.lets_in(key)));
    lab.tenant().retire(&session);
}

#[test]
fn one_process_holds_the_connection_of_the_provisioning() {
    let lab = lab(Pool::new("pool", 2), &json!({}));
    let _run = lab.start(&["run"]);
    lab.tenant().wait_filled("pool", 2);
    wait_held(&lab, 2);
    lab.tenant().request(&[("pool", 2)]);
    assert_eq!(logins(&lab), 2);
}

#[test]
fn connections_are_closed_when_nodes_are_drained_and_when_the_server_stops() {
    let (lab, serve) = serve_filled(2);
    let node = lab.sql("SELECT CAST(min(id) AS TEXT) FROM nodes WHERE state = 'ready'");
    let hold = ["admin", "hold-node", node.trim(), "--reason", "test"];
    lab.site.duffy().succeed(&hold);
    wait_held(&lab, 1);
    serve.terminate();
    assert_eq!(serve.wait_exit(LONG), 0, "{}", serve.log());
    wait_held(&lab, 0);
}

#[test]
fn a_held_connection_that_does_not_answer_is_replaced_in_the_same_request() {
    let (lab, _serve) = serve_filled(1);
    let before = logins(&lab);
    let nodes = lab.site.nodes();
    let _stalled: Vec<_> = nodes.map(SshNode::stall_connections).collect();
    lab.tenant().request(&[("pool", 1)]);
    assert_eq!(logins(&lab), before + 1);
    let key = lab.site.tenant_key();
    assert!(lab.site.nodes().all(|node| node.lets_in(key)));
}

/// Kills the machine of the only ready node. Its pool has another machine.
fn dead_node_leaves_its_pool(ssh: &Value, held: usize) {
    let pool = Pool::new("pool", 2).with(&json!({"fill-level": 1}));
    let mut lab = lab(pool, ssh);
    let serve = lab.start(&["serve"]);
    let _worker = lab.start(&["worker"]);
    lab.tenant().wait_filled("pool", 1);
    wait_held_after_worker(&lab, held);
    let ready = lab.tenant().nodes();
    let ready = ready.iter().find(|node| node["state"] == "ready").unwrap();
    let (id, ip) = (&ready["id"], ready["ipaddr"].as_str().unwrap().to_owned());
    lab.site.node(&ip).die();

    let failed = lab.admin().wait("the dead node to fail", |admin| {
        let node = admin.node(id);
        if node["state"] == "failed" {
            Ok(node)
        } else {
            Err(node.to_string())
        }
    });
    let detail = failed["data"]["error"]["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("ready node cannot be reached: ") && detail.contains(&ip),
        "{detail}"
    );
    let events = lab.admin().get(&format!("nodes/{id}/events"));
    let events = events["events"].as_array().unwrap();
    let last = events
        .iter()
        .find(|event| event["cause"] == "probe-failed")
        .unwrap();
    assert!(
        last["actor"].as_str().unwrap().starts_with("server "),
        "{last}"
    );
    assert!(last["detail"].as_str().unwrap().contains(&ip), "{last}");
    lab.tenant().wait_filled("pool", 1);
    let session = lab.tenant().request(&[("pool", 1)]);
    assert_ne!(session["nodes"][0]["id"], *id, "{}", serve.log());
    lab.assert_consistent();
}

#[test]
fn a_dead_node_with_a_held_connection_leaves_its_pool() {
    dead_node_leaves_its_pool(&json!({"connect-timeout": "2s", "timeout": "6s"}), 1);
}

#[test]
fn a_dead_node_is_found_by_a_probe() {
    let ssh = json!({"connect-timeout": "2s", "timeout": "6s", "probe-interval": "1s",
        "hold": {"enabled": false}});
    dead_node_leaves_its_pool(&ssh, 0);
}

#[test]
fn no_pool_is_emptied_when_all_nodes_are_unreachable() {
    let ssh = json!({"connect-timeout": "2s", "timeout": "6s"});
    let mut lab = lab(Pool::new("pool", 3), &ssh);
    let serve = lab.start(&["serve"]);
    let _worker = lab.start(&["worker"]);
    lab.tenant().wait_filled("pool", 3);
    wait_held_after_worker(&lab, 3);
    let ips: Vec<String> = lab.site.nodes().map(SshNode::ip).collect();
    for ip in &ips {
        lab.site.node(ip).die();
    }
    crate::support::wait_for_log(&serve, "most ready nodes cannot be reached");
    let states = lab.sql("SELECT CAST(state AS TEXT) FROM nodes WHERE retired_at IS NULL");
    assert_eq!(states, "ready\nready\nready");
    for ip in &ips {
        lab.site.node(ip).recover();
    }
    lab.tenant().request(&[("pool", 3)]);
}

#[test]
fn a_node_is_ready_when_it_lets_duffy_in() {
    let mut lab = lab(Pool::new("pool", 1), &json!({"connect-timeout": "2s"}));
    let ip = lab.site.nodes().next().unwrap().ip();
    lab.site.node(&ip).refuse();
    let _serve = lab.start(&["serve"]);
    let worker = lab.site.duffy().spawn(&["-l", "debug", "worker"]);
    crate::support::wait_for_log(&worker, "the node is not ready yet");
    let node = &lab.tenant().nodes()[0];
    assert_eq!(node["state"], "provisioning", "{node}");
    lab.site.node(&ip).recover();
    lab.tenant().wait_filled("pool", 1);
    let attempts = lab.site.events("pool");
    assert_eq!(attempts.len(), 1, "{attempts:?}");
}

#[test]
fn a_node_that_does_not_let_duffy_in_is_provisioned_again() {
    let ssh = json!({"connect-timeout": "2s", "ready-timeout": "500ms"});
    let mut lab = lab(Pool::new("pool", 1), &ssh);
    let ip = lab.site.nodes().next().unwrap().ip();
    lab.site.node(&ip).refuse();
    let _serve = lab.start(&["serve"]);
    let begun = Instant::now();
    let worker = lab.start(&["worker"]);
    lab.admin().wait("a failed attempt", |admin| {
        let nodes = admin.nodes();
        let detail = nodes
            .first()
            .map(|node| admin.node(&node["id"])["data"]["error"]["detail"].to_string());
        match detail {
            Some(detail) if detail.contains("the node does not let Duffy in") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{}",
        worker.log()
    );
    lab.site.node(&ip).recover();
    lab.tenant().wait_filled("pool", 1);
}
