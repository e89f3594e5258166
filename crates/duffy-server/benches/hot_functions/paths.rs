//! The hot functions, and input for them: for the benchmarks and for `tests/instruction_counts.rs`.

use std::fmt::Write;

use duffy_api::{NodeState, SessionCreate};
use duffy_config::Config;
use duffy_server::db::nodes::{NodeRow, State};
use duffy_server::db::{JsonObject, Timestamp};
use duffy_server::http::validate::{Form, read_body};
use duffy_server::lifecycle::views;
use serde_json::{Value, json};

/// Returns a configuration with this many pools, which extend others.
pub fn configuration(pools: usize) -> String {
    let mut text = "
defaults: {session-lifetime: 6h, session-lifetime-max: 12h, node-quota: 10}
nodepools:
  abstract:
    ansible:
      mechanism:
        type: ansible
        ansible: {topdir: /etc/duffy/playbooks, extra-vars: {nodepool: \"{{ name }}\"}}
    virtual:
      extends: ansible
      run-parallel: no
      mechanism:
        ansible:
          provision: {playbook: virtual/provision.yml, extra-vars: {size: \"{{ name.split('-')[1] }}\"}}
          deprovision: {playbook: virtual/deprovision.yml}
  concrete:
"
    .to_owned();
    for number in 0..pools {
        writeln!(
            text,
            "    virtual-{number}: {{extends: virtual, fill-level: 10}}"
        )
        .unwrap();
    }
    text
}

/// Loads a configuration.
pub fn load_configuration(text: &str) -> Config {
    duffy_config::load_text(text, "duffy.yaml").unwrap()
}

/// Returns the body of a request for this many pools.
pub fn session_body(pools: usize) -> Vec<u8> {
    let specs: Vec<Value> = (0..pools)
        .map(|number| json!({"pool": format!("virtual-{number}"), "quantity": number + 1}))
        .collect();
    json!({"tenant_id": 1, "nodes_specs": specs})
        .to_string()
        .into_bytes()
}

/// Reads and validates the body of a request for a session.
pub fn read_session(body: &[u8]) -> SessionCreate {
    let body = read_body(Some("application/json"), body).unwrap();
    SessionCreate::from_body(&body).unwrap()
}

/// Returns rows of nodes with the data that a playbook returns.
pub fn node_rows(quantity: i64) -> Vec<NodeRow> {
    let time = Timestamp(chrono::DateTime::UNIX_EPOCH);
    let row = |id| {
        let address = format!("192.0.{}.{}", id / 256 % 256, id % 256);
        let data = json!({
            "provision": {"hostname": "node", "ipaddr": address, "machine": {"flavor": "small", "id": id}},
            "nodes_spec": {"pool": "virtual-1", "quantity": 1},
        });
        NodeRow {
            id,
            hostname: Some(format!("node{id}.example.org")),
            ipaddr: Some(address),
            state: State(NodeState::Ready),
            comment: None,
            pool: Some("virtual-1".to_owned()),
            reusable: false,
            data: JsonObject(data.as_object().unwrap().clone()),
            created_at: time,
            retired_at: None,
            attempts: 0,
            fence: 1,
            repairs: 0,
            held_at: None,
            retry_at: None,
            state_since: Some(time),
            lease_expires_at: None,
        }
    };
    (1..=quantity).map(row).collect()
}

/// Returns the JSON of a list of nodes.
pub fn list_nodes(rows: Vec<NodeRow>) -> Vec<u8> {
    let nodes: Vec<_> = rows
        .into_iter()
        .map(|row| views::node(row, false))
        .collect();
    serde_json::to_vec(&nodes).unwrap()
}
