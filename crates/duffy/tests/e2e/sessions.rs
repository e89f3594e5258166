//! The basic workflow: Duffy fills pools, lends nodes, takes them back, and fills the pools again.

use serde_json::{Value, json};

use crate::support::{Lab, Pool, SshEndpoint, SshKey, SshNode};

/// Returns the addresses of a session's nodes, in the order of these pools.
fn addresses(session: &Value, pools: &[&str]) -> Vec<String> {
    let nodes = session["nodes"].as_array().unwrap();
    let of = |pool: &&str| -> Vec<String> {
        let own = nodes.iter().filter(|node| node["pool"] == **pool);
        own.map(|node| node["ipaddr"].as_str().unwrap().to_owned())
            .collect()
    };
    pools.iter().flat_map(of).collect()
}

fn simulated_pools() -> [Pool; 2] {
    let delays = json!({"provision-delay": "100ms", "hostname": "node-{{ id }}.{{ name }}"});
    [
        Pool::simulated("small", 2, &delays),
        Pool::simulated("large", 1, &delays),
    ]
}

/// Requests a simulated node of each pool, uses it, and retires the session.
fn lend_simulated_nodes(lab: &Lab) {
    let tenant = lab.tenant();
    tenant.wait_filled("small", 2);
    tenant.wait_filled("large", 1);

    let session = tenant.request(&[("small", 1), ("large", 1)]);
    let lent = session["nodes"].as_array().unwrap();
    assert_eq!(lent.len(), 2, "{session}");
    let scratch = lab.site.scratch().path();
    let stranger = SshKey::generate(
        &scratch.join(format!("stranger-{}", session["id"])),
        "stranger",
    );
    let mut endpoints = Vec::new();
    for node in lent {
        let node = tenant.node(&node["id"]);
        assert_eq!(node["state"], "deployed", "{node}");
        let hostname = format!("node-{}.{}", node["id"], node["pool"].as_str().unwrap());
        assert_eq!(node["hostname"], hostname, "{node}");
        let endpoint = SshEndpoint::of(&node);
        let output = endpoint.login(scratch, "root", lab.site.tenant_key(), "echo $((6 * 7))");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n", "{node}");
        assert!(!endpoint.lets_in(scratch, &stranger), "{node}");
        endpoints.push((node["id"].clone(), endpoint));
    }
    assert_eq!(tenant.get("sessions")["sessions"][0]["id"], session["id"]);

    tenant.retire(&session);
    for (id, endpoint) in endpoints {
        let gone = tenant.wait_state(&id, "done");
        assert!(gone["retired_at"].is_string(), "{gone}");
        assert!(!endpoint.lets_in(scratch, lab.site.tenant_key()), "{gone}");
    }
    tenant.wait_filled("small", 2);
    tenant.wait_filled("large", 1);
    assert_eq!(tenant.get("sessions")["sessions"], json!([]));
}

#[test]
fn one_process_lends_simulated_nodes() {
    let lab = Lab::on_sqlite(&simulated_pools(), &json!({}));
    let run = lab.start(&["run"]);
    lend_simulated_nodes(&lab);
    lab.assert_consistent();
    run.terminate();
    assert_eq!(run.wait_exit(std::time::Duration::from_secs(30)), 0);
}

#[test]
fn a_separate_server_lends_simulated_nodes_of_a_worker() {
    let lab = Lab::on_sqlite(&simulated_pools(), &json!({}));
    let serve = lab.start(&["serve"]);
    let worker = lab.start(&["worker"]);
    lend_simulated_nodes(&lab);
    lab.assert_consistent();
    for program in [serve, worker] {
        program.terminate();
        assert_eq!(program.wait_exit(std::time::Duration::from_secs(30)), 0);
    }
}

#[test]
fn machines_of_playbooks_can_be_lent() {
    // One pool has one playbook run per batch, the other one per node.
    let pools = [
        Pool::new("metal", 2).with(&json!({"run-parallel": false})),
        Pool::new("virtual", 1),
    ];
    let mut lab = Lab::on_postgres(&pools, &json!({}));
    let _serve = lab.start(&["serve"]);
    let worker = lab.start(&["worker"]);
    let tenant = lab.tenant();
    tenant.wait_filled("metal", 2);
    tenant.wait_filled("virtual", 1);
    assert_eq!((lab.site.taken("metal"), lab.site.taken("virtual")), (2, 1));
    let log = worker.log();
    let runs = log.matches("playbook started").count();
    assert_eq!(
        runs, 2,
        "one run for the batch of two, one for the other pool: {log}"
    );

    let session = tenant.request(&[("metal", 1), ("virtual", 1)]);
    let lent = addresses(&session, &["metal", "virtual"]);
    assert_eq!(lent.len(), 2, "{session}");
    let key = lab.site.tenant_key().clone();
    for ip in &lent {
        let node = lab.site.node(ip);
        let output = node.login(&key, "echo $HOME");
        let home = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(home.trim(), node.home().display().to_string());
    }
    let others: Vec<String> = lab.site.nodes().map(SshNode::ip).collect();
    for ip in others.iter().filter(|ip| !lent.contains(ip)) {
        assert!(!lab.site.node(ip).lets_in(&key), "{ip} is in no session");
    }

    tenant.retire(&session);
    for node in session["nodes"].as_array().unwrap() {
        tenant.wait_state(&node["id"], "done");
    }
    tenant.wait_filled("metal", 2);
    tenant.wait_filled("virtual", 1);
    let service_key = lab.site.service_key().clone();
    for ip in &lent {
        let node = lab.site.node(ip);
        assert!(!node.lets_in(&key), "{ip} was deprovisioned");
        assert_eq!(node.own_keys(), format!("{}\n", service_key.public()));
    }
    assert_eq!((lab.site.taken("metal"), lab.site.taken("virtual")), (2, 1));

    // The same happens when a session expires.
    let session = tenant.request(&[("virtual", 1)]);
    let ip = addresses(&session, &["virtual"]).remove(0);
    assert!(lab.site.node(&ip).lets_in(&key));
    let path = format!("sessions/{}", session["id"]);
    let sooner = tenant.call("PUT", &path, Some(&json!({"expires_at": "-59m59s"})));
    assert_eq!(sooner.unwrap().status, 200);
    tenant.wait_state(&session["nodes"][0]["id"], "done");
    assert!(!lab.site.node(&ip).lets_in(&key), "{ip} was deprovisioned");
    assert_eq!(tenant.get("sessions")["sessions"], json!([]));
    assert_eq!(tenant.get(&path)["session"]["active"], false);
    tenant.wait_filled("virtual", 1);
    lab.assert_consistent();
}
