//! The old API while the web API is down.

use std::time::Duration;

use serde_json::json;

use super::{Engine, KEY, Left};
use crate::support::{eventually, free_port, http};

const TIMEOUT: Duration = Duration::from_mins(1);

#[test]
fn the_old_api_survives_outages_of_the_web_api() {
    let left = Left::new(Engine::Sqlite);
    let port = free_port().to_string();
    let (web, web_url) = left.serve(&port);
    let (old, old_url) = left.serve_legacy(&web_url);
    let get = |path: &str| http("GET", &format!("{old_url}{path}"), None, None).unwrap();
    let inventory = format!("/Inventory?key={KEY}");
    let before = get(&inventory).json;
    assert!(before.is_array(), "{before}");
    assert_eq!(get("/healthz").status, 200);

    web.kill9();
    assert_eq!(
        get(&inventory).json,
        json!("Failed to retrieve inventory of nodes")
    );
    assert_eq!(get("/healthz").status, 503);
    let log = old.log();
    let cause = log
        .lines()
        .find(|line| line.contains("the web API does not answer"));
    let cause = cause.unwrap_or_else(|| panic!("{log}"));
    assert!(
        cause.contains("connection refused") && cause.contains("request_id="),
        "{cause}"
    );

    let (_web, _) = left.serve(&port);
    assert_eq!(get("/healthz").status, 200);
    assert_eq!(get(&inventory).json, before);

    // A stopping old API completes its session request.
    let path = format!("/Node/get?key={KEY}&ver=8-stream");
    let url = format!("{old_url}{path}");
    let asking = std::thread::spawn(move || http("GET", &url, None, None));
    eventually(TIMEOUT, "the request", || {
        let log = old.log();
        log.contains("session granted").then_some(()).ok_or(log)
    });
    old.terminate();
    let reply = asking.join().unwrap().unwrap();
    assert!(reply.json["ssid"].is_u64(), "{}", reply.text);
    assert_eq!(old.wait_exit(TIMEOUT), 0);
}
