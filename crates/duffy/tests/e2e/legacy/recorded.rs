//! Compares the old API with recordings of the original, on a database of the original.

use std::collections::HashMap;
use std::fs;

use serde_json::Value;

use super::{BASIC, Engine, KEY, Left, data, lent};
use crate::support::http;

#[test]
fn the_old_api_matches_the_recordings_on_postgresql() {
    replay(Engine::Postgres);
}

#[test]
fn the_old_api_matches_the_recordings_on_sqlite() {
    replay(Engine::Sqlite);
}

fn replay(engine: Engine) {
    let left = Left::new(engine);
    let (web, web_url) = left.serve("0");
    let (old, old_url) = left.serve_legacy(&web_url);
    let recording = fs::read(data("wire/08-legacy.json")).unwrap();
    let recording: Value = serde_json::from_slice(&recording).unwrap();
    let mut saved: HashMap<String, String> = HashMap::new();
    let mut differing = Vec::new();
    let steps = recording["steps"].as_array().unwrap();
    assert!(steps.len() > 20);
    for step in steps {
        let mut path = step["path"].as_str().unwrap().to_owned();
        for (name, value) in &saved {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        let method = step["method"].as_str().unwrap();
        let reply = http(method, &format!("{old_url}{path}"), None, None).unwrap();
        let expect = &step["expect"];
        let mut why = Vec::new();
        if expect["status"] != reply.status {
            why.push(format!("status {}", reply.status));
        }
        if reply.header("x-request-id").is_none() {
            why.push("no request id".to_owned());
        }
        // The recording starts after others that leave sessions. So the test asks the web API for the number of nodes.
        let rows = path.starts_with("/Inventory").then(|| {
            let who = path.contains("key=").then_some(("tenant", KEY));
            let sessions = http("GET", &format!("{web_url}/api/v1/sessions"), who, None);
            lent(&sessions.unwrap().json)
        });
        if !fits(&expect["body"], &reply.json, rows) {
            why.push(format!("body {}, not {}", reply.text, expect["body"]));
        }
        if !why.is_empty() {
            differing.push(format!("{}: {}", step["name"], why.join(", ")));
        }
        for (name, member) in step["save"].as_object().into_iter().flatten() {
            let value = &reply.json[member.as_str().unwrap()];
            saved.insert(name.clone(), value.to_string());
        }
    }
    assert!(
        differing.is_empty(),
        "{} differ:\n{}",
        differing.len(),
        differing.join("\n")
    );

    for log in [web.log(), old.log()] {
        assert!(
            log.contains("/Node/get") || log.contains("/api/v1/sessions"),
            "{log}"
        );
        for secret in [KEY, BASIC, "nope"] {
            assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
    }
    // Both logs contain the same request id.
    let log = old.log();
    let refused = log
        .lines()
        .find(|line| line.contains("the web API refuses"));
    let refused = refused.expect("nothing was refused");
    let id = |before: &str| {
        let rest = refused
            .split_once(before)
            .unwrap_or_else(|| panic!("{refused}"))
            .1;
        rest[..36].to_owned()
    };
    let (ours, theirs) = (id("{request_id=\""), id("upstream.request_id=\""));
    let lines = web.log();
    assert!(
        lines
            .lines()
            .any(|line| line.contains(&ours) && line.contains(&theirs)),
        "{ours} and {theirs} are in no line:\n{lines}"
    );
}

/// Whether a body matches the recorded one. Each row of an inventory must match a recorded row; `rows` is their number.
fn fits(recorded: &Value, body: &Value, rows: Option<usize>) -> bool {
    match (recorded, body) {
        (Value::Array(recorded), Value::Array(body)) if rows.is_some() => {
            // All pools have rows of the same form, so any recorded row matches.
            let fit = |row: &Value| recorded.iter().any(|recorded| fits(recorded, row, None));
            Some(body.len()) == rows && !body.is_empty() && body.iter().all(fit)
        }
        (Value::Array(recorded), Value::Array(body)) => {
            let mut both = recorded.iter().zip(body);
            recorded.len() == body.len() && both.all(|(recorded, body)| fits(recorded, body, None))
        }
        // The recording contains location and type of an error.
        (Value::Object(recorded), Value::Object(body)) => recorded.iter().all(|(key, recorded)| {
            let value = body.get(key);
            value.is_some_and(|value| fits(recorded, value, None))
        }),
        (Value::String(free), value) if free == "<id>" => {
            value.is_u64()
                || value
                    .as_str()
                    .is_some_and(|text| text.parse::<u64>().is_ok())
        }
        (Value::String(free), Value::String(text)) if free == "<node>" => {
            let number = text.strip_prefix("node");
            number.is_some_and(|number| number.parse::<u64>().is_ok())
        }
        (Value::String(free), Value::String(text)) if free == "<ipaddr>" => {
            text.starts_with("127.1.") && text.parse::<std::net::Ipv4Addr>().is_ok()
        }
        _ => recorded == body,
    }
}
