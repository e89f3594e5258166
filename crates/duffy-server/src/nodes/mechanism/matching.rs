//! Finds out which result belongs to which node, and whether it can be used. Pure functions on text from outside.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use serde_json::{Map, Number, Value};
use tracing::warn;

use super::{MechanismNode, NodeResult, shorten};
use crate::nodes::ssh::read_port;

/// Where SSH listens unless the result says otherwise.
const SSH_PORT: u16 = 22;

/// Gives each node its result, or the reason why it has none. Results are in the order of the nodes. A result that is
/// no object, lacks a usable `ipaddr`, or names the machine of an earlier result fails its own node and no other.
/// Nodes without a result failed; results without a node are ignored.
pub fn match_provisioned(
    nodes: &[MechanismNode],
    results: &[Value],
) -> Vec<Result<NodeResult, String>> {
    if results.len() > nodes.len() {
        warn!(
            nodes = nodes.len(),
            results = results.len(),
            "more results than nodes; the last ones are ignored"
        );
    }
    let mut machines = HashSet::new();
    let mut take = |index| {
        let (results_len, nodes_len) = (results.len(), nodes.len());
        let result = results.get(index).ok_or_else(|| {
            format!("no result for this node: {results_len} came back for {nodes_len} nodes")
        })?;
        let (result, machine) = check_result(result)?;
        if machines.insert(machine) {
            return Ok(result.clone());
        }
        let address = &result["ipaddr"];
        Err(format!(
            "{address} is the address of an earlier node in the same result"
        ))
    };
    (0..nodes.len()).map(&mut take).collect()
}

/// Says for each node whether a result names it, which means that it is taken down.
///
/// A result names the first node not yet named whose provisioning result has all its keys with the same values; it needs
/// at least one key. A result that matches no node in this way may also repeat the mechanism's input: an object with
/// the node's `id`, and with its `hostname` and `ipaddr`, if they are given.
pub fn match_deprovisioned(nodes: &[MechanismNode], results: &[Value]) -> Vec<bool> {
    let mut matched = vec![false; nodes.len()];
    for result in results {
        let Value::Object(keys) = result else {
            warn!(%result, "a result of deprovisioning is not an object; ignored");
            continue;
        };
        let mut find = |names: fn(&Map<String, Value>, &MechanismNode) -> bool| {
            let mut free = matched
                .iter_mut()
                .zip(nodes)
                .filter(|(matched, _)| !**matched);
            let found = free.find(|(_, node)| names(keys, node));
            found.map(|(matched, _)| *matched = true).is_some()
        };
        if !find(names_provisioned) && !find(names_input) {
            warn!(%result, "no node matches a result of deprovisioning; ignored");
        }
    }
    matched
}

/// The host name in a provisioning result, if there is a usable one.
pub fn result_hostname(result: &NodeResult) -> Option<&str> {
    result
        .get("hostname")?
        .as_str()
        .filter(|name| is_hostname(name) || is_ip_address(name))
}

/// The port in a provisioning result: `ssh_port`.
fn result_ssh_port(result: &NodeResult) -> Result<Option<u16>, String> {
    match result.get("ssh_port") {
        None | Some(Value::Null) => Ok(None),
        Some(port) => read_port(port).map(Some).ok_or_else(|| {
            let port = brief(port);
            format!("ssh_port {port} is not a port; give a number from 1 to 65535")
        }),
    }
}

/// Returns a result that can be used, and what distinguishes its machine from others.
fn check_result(value: &Value) -> Result<(&NodeResult, (String, u16)), String> {
    let Value::Object(result) = value else {
        return Err(format!(
            "the result for this node is {}, not an object with an ipaddr",
            brief(value)
        ));
    };
    let address = match result.get("ipaddr") {
        None | Some(Value::Null) => return Err("the result for this node has no ipaddr".to_owned()),
        Some(Value::String(address)) if is_ip_address(address) || is_hostname(address) => address,
        Some(other) => {
            return Err(format!(
                "the ipaddr in the result for this node is {}, not an address",
                brief(other)
            ));
        }
    };
    // PostgreSQL stores it neither in text nor in JSON.
    if has_nul(value) {
        return Err("the result for this node contains NUL characters".to_owned());
    }
    let port = result_ssh_port(result)?.unwrap_or(SSH_PORT);
    let machine = match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => address.trim_end_matches('.').to_ascii_lowercase(),
    };
    Ok((result, (machine, port)))
}

fn is_ip_address(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    // A link-local address with its interface.
    text.split_once('%').is_some_and(|(address, zone)| {
        address.parse::<Ipv6Addr>().is_ok()
            && !zone.is_empty()
            && zone
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    })
}

/// Whether a resolver would accept it, and no command line could take it for an option.
fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // The last label of a mistyped IP address is a number, that of a name never is.
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253
        && name.split('.').all(label_ok)
        && !name.rsplit('.').next().is_none_or(numeric)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn names_provisioned(result: &Map<String, Value>, node: &MechanismNode) -> bool {
    let Some(Value::Object(provisioned)) = node.data.get("provision") else {
        return false;
    };
    !result.is_empty() && is_part(result, provisioned)
}

/// Whether another mapping has all members of this one.
fn is_part(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let mut members = one.iter();
    members.all(|(key, value)| other.get(key).is_some_and(|other| is_equal(value, other)))
}

fn names_input(result: &Map<String, Value>, node: &MechanismNode) -> bool {
    let same = |known: &Option<String>, value: &Value| {
        value.is_null() || value.as_str() == known.as_deref()
    };
    result.contains_key("id")
        && result.iter().all(|(key, value)| match key.as_str() {
            "id" => is_equal(&Value::from(node.id), value),
            "hostname" => same(&node.hostname, value),
            "ipaddr" => same(&node.ipaddr, value),
            "data" => true,
            _ => false,
        })
}

/// Whether values are equal as in Python, because the original compares so: `1`, `1.0` and `true` are the same.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            let mut pairs = one.iter().zip(other);
            one.len() == other.len() && pairs.all(|(one, other)| is_equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len() && is_part(one, other)
        }
        _ => match (to_number(one), to_number(other)) {
            (Some(one), Some(other)) => match (one.as_i128(), other.as_i128()) {
                (Some(one), Some(other)) => one == other,
                _ => one.as_f64() == other.as_f64(),
            },
            _ => one == other,
        },
    }
}

fn to_number(value: &Value) -> Option<Number> {
    match value {
        Value::Bool(value) => Some(Number::from(u8::from(*value))),
        Value::Number(number) => Some(number.clone()),
        _ => None,
    }
}

/// A value from outside for a message: one short line.
fn brief(value: &Value) -> String {
    shorten(value.to_string(), 80)
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
