//! Sends the recorded requests to the server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::pattern::compare;
use super::{CREDENTIALS, Engine, WireSite, steps};
use crate::support::{Reply, http, send};

const RECORDINGS: &[&str] = &[
    "01-pools.json",
    "02-auth.json",
    "03-sessions-read.json",
    "04-sessions-create.json",
    "05-sessions-update.json",
    "06-tenants.json",
    "07-nodes.json",
    "09-docs.json",
];

#[test]
fn replies_match_the_recordings_on_postgresql() {
    replay(Engine::Postgres);
}

#[test]
fn replies_match_the_recordings_on_sqlite() {
    replay(Engine::Sqlite);
}

/// Sends all requests in order, and reports all differences at the end.
fn replay(engine: Engine) {
    let site = WireSite::new(engine);
    let (server, url) = site.serve();
    let mut saved: Vec<(String, String)> = Vec::new();
    let mut differing = Vec::new();
    for recording in RECORDINGS {
        for step in steps(recording) {
            let reply = ask(&url, &step, &saved);
            let name = format!("{recording}: {}", step["name"].as_str().unwrap());
            if let Err(why) = check(&step, &reply) {
                differing.push(format!("{name}: {why}\n    {}", reply.text));
            }
            for (name, path) in step["save"].as_object().into_iter().flatten() {
                let pointer = format!("/{}", path.as_str().unwrap().replace('.', "/"));
                let value = reply.json.pointer(&pointer);
                saved.push((name.clone(), value.unwrap_or(&Value::Null).to_string()));
            }
        }
    }
    // The numbers of the pools match the nodes.
    let all = http("GET", &format!("{url}/api/v1/nodes"), None, None).unwrap();
    for pool in [
        "physical-centos8stream-x86_64",
        "virtual-centos9stream-aarch64-medium",
    ] {
        let reply = http("GET", &format!("{url}/api/v1/pools/{pool}"), None, None).unwrap();
        for (state, level) in reply.json["pool"]["levels"].as_object().unwrap() {
            let nodes = all.json["nodes"].as_array().unwrap().iter();
            let same = nodes.filter(|node| node["pool"] == pool && node["state"] == **state);
            assert_eq!(same.count() as u64, *level, "{pool}: {state}");
        }
    }
    assert!(
        differing.is_empty(),
        "{} differ:\n{}",
        differing.len(),
        differing.join("\n")
    );
    server.terminate();
    assert_eq!(server.wait_exit(std::time::Duration::from_mins(1)), 0);
}

fn ask(url: &str, step: &Value, saved: &[(String, String)]) -> Reply {
    let mut path = step["path"].as_str().unwrap().to_owned();
    for (name, value) in saved {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    let mut headers = Vec::new();
    for (name, value) in step["headers"].as_object().into_iter().flatten() {
        headers.push((name.clone(), value.as_str().unwrap().to_owned()));
    }
    match step["as"].as_str().unwrap() {
        "none" => {}
        who => {
            let (_, name, key) = CREDENTIALS
                .iter()
                .find(|(alias, ..)| *alias == who)
                .unwrap();
            let pair = STANDARD.encode(format!("{name}:{key}"));
            headers.push(("authorization".to_owned(), format!("Basic {pair}")));
        }
    }
    let body = match (step.get("json"), step.get("raw")) {
        (Some(json), _) => {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
            Some(json.to_string())
        }
        (None, Some(raw)) => Some(raw.as_str().unwrap().to_owned()),
        (None, None) => None,
    };
    let method = step["method"].as_str().unwrap();
    send(method, &format!("{url}{path}"), &headers, body.as_deref()).unwrap()
}

/// Compares a reply with the recorded one.
fn check(step: &Value, reply: &Reply) -> Result<(), String> {
    let expect = &step["expect"];
    let status = json!(reply.status);
    if reply.header("x-request-id").is_none() {
        return Err("no X-Request-ID".to_owned());
    }
    let also = step["any_of"].as_array().into_iter().flatten();
    if also.clone().any(|other| *other == status) {
        return Ok(());
    }
    if status != expect["status"] {
        return Err(format!("status {status}, not {}", expect["status"]));
    }
    let challenge = reply.header("www-authenticate");
    if challenge != expect["www-authenticate"].as_str() {
        return Err(format!(
            "WWW-Authenticate {challenge:?}, not {}",
            expect["www-authenticate"]
        ));
    }
    if step["status_only"] == true {
        return Ok(());
    }
    let kind = reply.header("content-type");
    if kind != Some("application/json") {
        return Err(format!("Content-Type {kind:?}"));
    }
    let (recorded, body) = (&expect["body"], &reply.json);
    if reply.status == 422 && (step["loose"] == true || recorded["detail"].is_array()) {
        let errors = errors(body).ok_or("not a list of errors")?;
        return if step["loose"] == true {
            Ok(())
        } else {
            compare(recorded, &json!({"detail": errors}))
        };
    }
    if reply.status == 409 {
        let detail = body["detail"].as_str().unwrap_or_default();
        let asked = &step["json"];
        let names_it = ["name", "hostname", "ipaddr"].iter().any(|field| {
            asked[field]
                .as_str()
                .is_some_and(|value| detail.contains(field) && detail.contains(value))
        });
        if !names_it || !detail.contains("unique") {
            return Err("does not say what must be unique".to_owned());
        }
    }
    compare(recorded, body)
}

/// Returns the validation errors of a body in the recorded form: location, as texts, and type.
fn errors(body: &Value) -> Option<Vec<Value>> {
    let errors = body["detail"].as_array().filter(|list| !list.is_empty())?;
    errors
        .iter()
        .map(|error| {
            error["msg"].as_str().filter(|words| !words.is_empty())?;
            let words = |part: &Value| match part {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let place: Vec<_> = error["loc"].as_array()?.iter().map(words).collect();
            Some(json!({"loc": place, "type": error["type"].as_str()?}))
        })
        .collect()
}
