//! How many statements servers and workers send to PostgreSQL.

use std::time::Duration;

use serde_json::json;

use crate::support::{Lab, Pool, eventually};

const TIMEOUT: Duration = Duration::from_mins(1);

/// Creates a site with one pool of simulated nodes, the default intervals, and a server that logs statements.
fn lab(nodes: u16, concurrency: u32) -> Lab {
    let pool = Pool::simulated("p", nodes, &json!({"provision-delay": "0s"}));
    let lab = Lab::on_postgres(
        &[pool],
        &json!({"tasks": {"periodic": null, "lease": "1m", "concurrency": concurrency}}),
    );
    let postgres = lab.postgres.as_ref().unwrap();
    postgres.psql("ALTER SYSTEM SET log_statement = 'all'");
    postgres.psql("ALTER SYSTEM SET log_line_prefix = '%a '");
    postgres.psql("SELECT pg_reload_conf()");
    eventually(TIMEOUT, "the log to have statements", || {
        lab.sql("SELECT 1");
        let log = postgres.log();
        log.contains("psql LOG:  statement: SELECT 1")
            .then_some(())
            .ok_or(log)
    });
    lab
}

/// Returns the statements that Duffy has sent, without their texts' further lines.
fn sent(lab: &Lab) -> Vec<String> {
    let log = lab.postgres.as_ref().unwrap().log();
    let lines = log.lines().filter(|line| line.starts_with("duffy LOG:  "));
    lines.map(ToOwned::to_owned).collect()
}

fn wait_until_ready(lab: &Lab, nodes: &str) {
    eventually(TIMEOUT, "the nodes to be ready", || {
        let ready = lab.sql("SELECT count(*) FROM nodes WHERE state = 'ready'");
        (ready == nodes).then_some(()).ok_or(ready)
    });
}

#[test]
fn a_node_is_filled_with_few_statements() {
    let lab = lab(50, 100);
    let _worker = lab.start(&["worker"]);
    wait_until_ready(&lab, "50");
    let sent = sent(&lab);
    // To make a node ready: BEGIN, two look-ups, the node, its event, COMMIT. Claims are for many nodes at once.
    let most = 60 + 50 * 6;
    assert!(sent.len() <= most, "{}: {sent:#?}", sent.len());
    assert!(sent.len() >= 50, "the log is incomplete: {sent:#?}");
}

#[test]
fn an_idle_server_and_an_idle_worker_send_few_statements() {
    let lab = lab(20, 8);
    let _serve = lab.start(&["serve"]);
    let _worker = lab.start(&["worker"]);
    wait_until_ready(&lab, "20");
    let second = || -> u64 {
        let second = lab.sql("SELECT floor(extract(epoch FROM now()))::bigint");
        second.parse().unwrap()
    };
    // What the last node's commit wakes ends within a few seconds, and so do the frequent looks of the server at ready nodes.
    let (begin, window) = (second() + 8, 15);
    let wait_until = |end: u64| {
        eventually(TIMEOUT, "the database's clock", || {
            let now = second();
            (now >= end).then_some(()).ok_or(now.to_string())
        });
    };
    wait_until(begin);
    let before = sent(&lab).len();
    wait_until(begin + window);
    let sent = sent(&lab).split_off(before);
    assert!(!sent.is_empty(), "nobody looks for what waits");
    let most = usize::try_from(window).unwrap();
    assert!(sent.len() <= most, "{}: {sent:#?}", sent.len());
}
