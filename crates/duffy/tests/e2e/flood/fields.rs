//! Values that no database column and no parser accepts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{assert_bounded, serve};
use crate::support::{Api, Reply, send};

fn ask(api: &Api, method: &str, url: &str, body: Option<&str>) -> Reply {
    let (name, key) = api.credentials();
    ask_as(&format!("{name}:{key}"), method, url, body)
}

fn ask_as(pair: &str, method: &str, url: &str, body: Option<&str>) -> Reply {
    let headers = [
        (
            "authorization".to_owned(),
            format!("Basic {}", STANDARD.encode(pair)),
        ),
        ("content-type".to_owned(), "application/json".to_owned()),
    ];
    send(method, url, &headers, body).unwrap()
}

#[test]
fn no_value_causes_a_server_error() {
    let (lab, serve, before) = serve();
    let admin = lab.admin();
    let base = format!("http://127.0.0.1:{}/api/v1", lab.port());
    let refused = |method: &str, path: &str, body: Option<&str>| {
        let reply = ask(&admin, method, &format!("{base}/{path}"), body);
        assert!(
            (400..500).contains(&reply.status),
            "{method} {path} {body:?}: {reply:?}"
        );
        assert!(reply.json["detail"] != Value::Null, "{reply:?}");
        assert!(reply.text.len() < 4 * 1024 * 1024);
    };
    let huge = format!("1{}", "0".repeat(30));
    let longest = "9".repeat(5000);
    for resource in ["sessions", "nodes", "tenants"] {
        let odd = [
            "-1",
            "0",
            "9223372036854775808",
            "%00",
            "1%00",
            "%ff",
            "1e5",
            "%2b",
            &huge,
            &longest,
        ];
        for id in odd {
            refused("GET", &format!("{resource}/{id}"), None);
        }
        // Leading zeros are valid, here and in the original. No row has this id.
        refused(
            "GET",
            &format!("{resource}/0000000000000000000000099999"),
            None,
        );
        if resource != "nodes" {
            refused(
                "PUT",
                &format!("{resource}/{huge}"),
                Some(r#"{"active": false}"#),
            );
            refused(
                "PUT",
                &format!("{resource}/-1"),
                Some(r#"{"active": false}"#),
            );
        }
    }
    refused("GET", "pools/%00", None);
    refused("GET", "pools/a%00b", None);

    let deep = "[".repeat(100_000);
    let keys = format!(
        "{{{}\"nodes_specs\": 1}}",
        "\"nodes_specs\":2,".repeat(50_000)
    );
    let number = "9".repeat(1024 * 1024 - 100);
    let spec = r#"{"pool": "none", "quantity": 1}"#;
    let specs = format!("[{}{spec}]", format!("{spec},").repeat(20_000));
    let large = r#"{"pool": "pool", "quantity": 4294967295}"#;
    let sums = format!("[{}{large}]", format!("{large},").repeat(5_000));
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGm0";
    let bodies = [
        ("sessions", deep.clone()),
        ("sessions", "{\"a\":".repeat(100_000)),
        ("sessions", format!("{{\"nodes_specs\": {deep}")),
        ("sessions", keys),
        ("sessions", number.clone()),
        (
            "sessions",
            format!("{{\"tenant_id\": {number}, \"nodes_specs\": []}}"),
        ),
        (
            "sessions",
            format!(
                "{{\"tenant_id\": 1e{}, \"nodes_specs\": []}}",
                "9".repeat(1000)
            ),
        ),
        (
            "sessions",
            format!("{{\"nodes_specs\": [{{\"pool\": \"pool\", \"quantity\": {huge}}}]}}"),
        ),
        ("sessions", format!("{{\"nodes_specs\": {specs}}}")),
        ("sessions", format!("{{\"nodes_specs\": {sums}}}")),
        ("sessions", format!("{{\"nodes_specs\": [{large}]}}")),
        (
            "sessions",
            r#"{"nodes_specs": [{"pool": "\u0000", "quantity": 1}]}"#.to_owned(),
        ),
        (
            "sessions",
            r#"{"nodes_specs": [{"pool": "\ud800", "quantity": 1}]}"#.to_owned(),
        ),
        (
            "sessions",
            "{\"nodes_specs\": [{\"pool\": \"a\0b\", \"quantity\": 1}]}".to_owned(),
        ),
        (
            "tenants",
            format!(r#"{{"name": "a\u0000b", "ssh_key": "{key}"}}"#),
        ),
        (
            "tenants",
            format!(r#"{{"name": "\udc00", "ssh_key": "{key}"}}"#),
        ),
        (
            "tenants",
            format!(r#"{{"name": "n", "ssh_key": "{key} \u0000"}}"#),
        ),
        (
            "tenants",
            format!(r#"{{"name": "n", "ssh_key": "{key}", "node_quota": {huge}}}"#),
        ),
        (
            "tenants",
            format!(r#"{{"name": "n", "ssh_key": "{key}", "session_lifetime": {huge}}}"#),
        ),
        (
            "tenants",
            format!(r#"{{"name": "n", "ssh_key": "{key}", "session_lifetime": "1\u0000h"}}"#),
        ),
    ];
    for (path, body) in &bodies {
        refused("POST", path, Some(body));
    }
    for (field, value) in [
        ("hostname", json!("a\0b")),
        ("ipaddr", json!("192.0.2.1\0")),
        ("comment", json!("\0")),
        ("pool", json!("\0")),
        ("data", json!({"a": "\0"})),
        ("data", json!({"\0": 1})),
        ("data", json!({"a": [{"b": ["\0"]}]})),
    ] {
        let mut node = json!({"hostname": "h", "ipaddr": "192.0.2.1"});
        node[field] = value;
        refused("POST", "nodes", Some(&node.to_string()));
    }
    let created = lab.sql("SELECT CAST(id AS TEXT) FROM tenants ORDER BY id");
    let last = created.lines().last().unwrap().to_owned();
    for body in [
        json!({"ssh_key": format!("{key}\0")}),
        json!({"api_key": "\0"}),
        json!({"session_lifetime_max": "\0"}),
    ] {
        refused("PUT", &format!("tenants/{last}"), Some(&body.to_string()));
    }
    refused("PUT", "sessions/1", Some(r#"{"expires_at": "+1\u0000h"}"#));

    // Invalid names and keys.
    for pair in ["\0:key", "tenant:\0", "\0", "a\0b:c\0d"] {
        let reply = ask_as(pair, "GET", &format!("{base}/tenants"), None);
        assert!([401, 429].contains(&reply.status), "{pair:?}: {reply:?}");
    }
    // Unknown members are ignored.
    let reply = ask(
        &admin,
        "GET",
        &format!("{base}/pools?a=%00&b=%ff&{}", "c=d&".repeat(5000)),
        None,
    );
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(lab.sql("SELECT CAST(count(*) AS TEXT) FROM sessions"), "0");
    assert_bounded(&serve, before);
}
