//! Results of playbooks: any events give results or a reason in one line. Each node gets a result or a reason, and no two nodes get the
//! same machine.
#![no_main]

use std::collections::HashSet;

use duffy_server::nodes::ansible::judge_events;
use duffy_server::nodes::mechanism::{
    MechanismNode, match_deprovisioned, match_provisioned, result_hostname,
};
use duffy_server::nodes::ssh::read_port;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const NODES: i64 = 3;

fn nodes() -> Vec<MechanismNode> {
    (1..=NODES)
        .map(|id| MechanismNode {
            id,
            hostname: Some(format!("node{id}")),
            ipaddr: Some(format!("192.0.2.{id}")),
            data: json!({"provision": {
                "hostname": format!("node{id}"), "ipaddr": format!("192.0.2.{id}"), "n": id, "b": id == 1, "l": [id, {}],
            }}),
        })
        .collect()
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((code, data)) = data.split_first() else {
        return;
    };
    // Most playbooks succeed. The output follows a byte that no text contains.
    let code = code.saturating_sub(200);
    let mut parts = data.splitn(2, |byte| *byte == 0xff);
    let events = parts.next().unwrap_or_default();
    let tail = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let results = match judge_events(events, tail, code) {
        Ok(results) => results,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
            return;
        }
    };
    let nodes = nodes();
    let matched = match_provisioned(&nodes, &results);
    assert_eq!(matched.len(), nodes.len());
    let mut machines = HashSet::new();
    for result in matched {
        match result {
            Ok(result) => {
                let port = match &result.get("ssh_port") {
                    None | Some(Value::Null) => 22,
                    Some(port) => read_port(port).expect("a port"),
                };
                let address = result["ipaddr"].as_str().map(str::to_owned);
                assert!(address.is_some());
                assert!(machines.insert((address, port)));
                let _ = result_hostname(&result);
                let Ok(text) = serde_json::to_string(&result) else {
                    panic!("cannot be stored: {result:?}");
                };
                assert!(
                    !result
                        .iter()
                        .any(|(name, value)| name.contains('\0') || has_nul(value)),
                    "PostgreSQL accepts no NUL"
                );
                assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
            }
            Err(reason) => assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}"),
        }
    }
    assert_eq!(match_deprovisioned(&nodes, &results).len(), nodes.len());
});
