//! The history of nodes and sessions, through the API and the command line.

use serde_json::{Value, json};

use crate::support::{Api, Lab, Pool, http};

fn events(api: &Api, path: &str) -> Vec<Value> {
    let reply = api.get(path);
    assert_eq!(reply["action"], "get");
    reply["events"].as_array().unwrap().clone()
}

fn causes(events: &[Value]) -> Vec<&str> {
    let causes = events.iter().map(|event| event["cause"].as_str().unwrap());
    causes.collect()
}

/// Lends a node, and compares the history for administrators, tenants and operators.
fn check_history(lab: &Lab) {
    let (tenant, admin) = (lab.tenant(), lab.admin());
    let _run = lab.start(&["run"]);
    tenant.wait_filled("small", 1);
    let session = tenant.request(&[("small", 1)]);
    let node = &session["nodes"][0]["id"];
    tenant.retire(&session);
    tenant.wait_state(node, "done");

    let of_node = format!("nodes/{node}/events");
    let all = events(&admin, &of_node);
    assert_eq!(
        causes(&all),
        [
            "filled",
            "claimed",
            "provisioned",
            "reserved",
            "deployed",
            "retired",
            "claimed",
            "deprovisioned"
        ]
    );
    let last = all.last().unwrap();
    assert_eq!(
        [&last["from_state"], &last["to_state"], &last["pool"]],
        ["deprovisioning", "done", "small"]
    );
    let of_session = format!("sessions/{}/events", session["id"]);
    let session_events = events(&admin, &of_session);
    for cause in ["granted", "reserved", "deployed", "retired"] {
        assert!(
            causes(&session_events).contains(&cause),
            "{cause}: {session_events:?}"
        );
    }
    for event in all.iter().chain(&session_events) {
        let actor = event["actor"].as_str().unwrap();
        let word = if event["session_id"].is_null() {
            "worker "
        } else {
            "request "
        };
        assert!(actor.starts_with(word), "{event}");
        assert!(event["created_at"].as_str().unwrap().ends_with('Z'));
    }

    // Read the history page by page.
    let mut paged = Vec::new();
    let mut after = json!(0);
    loop {
        let page = events(&admin, &format!("{of_node}?limit=3&after={after}"));
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 3);
        after = last["id"].clone();
        paged.extend(page);
    }
    assert_eq!(paged, all);

    // The tenant sees the events of its session, without the actor.
    let own = events(&tenant, &of_node);
    assert_eq!(causes(&own), ["reserved", "deployed", "retired"]);
    let own_session = events(&tenant, &of_session);
    assert_eq!(causes(&own_session), causes(&session_events));
    for event in own.iter().chain(&own_session) {
        assert_eq!(event["tenant_id"], session["tenant"]["id"], "{event}");
        assert!(event.get("actor").is_none(), "{event}");
        assert!(event.get("detail").is_none(), "{event}");
    }
    let key = lab.site.tenant_key().public();
    let created = lab
        .site
        .duffy()
        .succeed(&["admin", "create-tenant", "other", key]);
    let key = created.trim().rsplit(' ').next().unwrap();
    let other = Api::new(lab.port(), "other", key);
    assert!(events(&other, &of_node).is_empty());
    assert_eq!(other.call("GET", &of_session, None).unwrap().status, 403);
    for path in ["nodes/99/events", "sessions/99/events"] {
        assert_eq!(other.call("GET", path, None).unwrap().status, 404, "{path}");
    }

    // The command line shows the same to operators.
    let duffy = lab.site.duffy();
    for (command, id, all) in [
        ("node-events", node, &all),
        ("session-events", &session["id"], &session_events),
    ] {
        let id = id.to_string();
        let printed = duffy.succeed(&["admin", command, &id, "--json"]);
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed["events"], json!(all));
        let table = duffy.succeed(&["admin", command, &id]);
        assert_eq!(table.lines().count(), all.len() + 1, "{table}");
        assert!(table.contains("contextualizing → deployed"), "{table}");
        let output = duffy.run(&["admin", command, "99"]);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""));
        assert!(output.stderr.contains("there is no"), "{}", output.stderr);
    }
    let page = duffy.run(&["admin", "node-events", &node.to_string(), "--limit", "2"]);
    assert_eq!(page.stdout.lines().count(), 3);
    assert!(page.stderr.contains("--after"), "{}", page.stderr);
}

#[test]
fn operators_see_the_history_and_tenants_their_part() {
    let pool = [Pool::simulated("small", 1, &json!({}))];
    check_history(&Lab::on_postgres(&pool, &json!({})));
}

#[test]
fn operators_see_the_history_and_tenants_their_part_on_sqlite() {
    let pool = [Pool::simulated("small", 1, &json!({}))];
    check_history(&Lab::on_sqlite(&pool, &json!({})));
}

/// Requests without effect write no event. Sessions without nodes write one event and have a limit.
fn check_cheap_requests(lab: &Lab) {
    let tenant = lab.tenant();
    let _serve = lab.start(&["serve"]);
    let ask = |nodes_specs: Value| {
        let body = json!({ "nodes_specs": nodes_specs });
        tenant.call("POST", "sessions", Some(&body)).unwrap()
    };
    let granted = ask(json!([]));
    assert_eq!(granted.status, 201, "{}", granted.text);
    let session = granted.json["session"].clone();
    let path = format!("sessions/{}", session["id"]);
    let of_session = format!("{path}/events");
    assert_eq!(causes(&events(&tenant, &of_session)), ["granted"]);
    // One transaction grants the session, so that a crash leaves no part of it. In SQLite, each statement has its own time.
    if lab.postgres.is_some() {
        let granted_at = "SELECT CAST(count(*) AS TEXT) FROM sessions \
            JOIN events ON events.session_id = sessions.id AND events.created_at = sessions.created_at";
        assert_eq!(lab.sql(granted_at), "1");
    }

    for change in [json!("+0s"), json!("-0s"), session["expires_at"].clone()] {
        let body = json!({ "expires_at": change });
        let reply = tenant.call("PUT", &path, Some(&body)).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.json["session"]["expires_at"], session["expires_at"]);
        assert_eq!(causes(&events(&tenant, &of_session)), ["granted"], "{body}");
    }
    let longer = json!({"expires_at": "+1s"});
    tenant.call("PUT", &path, Some(&longer)).unwrap();
    assert_eq!(
        causes(&events(&tenant, &of_session)),
        ["granted", "extended"]
    );

    assert_eq!(ask(json!([])).status, 201);
    let refused = ask(json!([]));
    assert_eq!(refused.status, 403);
    let detail = refused.json["detail"].as_str().unwrap();
    assert!(detail.contains("2 active sessions"), "{detail}");
    tenant.retire(&session);
    assert_eq!(ask(json!([])).status, 201);
}

#[test]
fn cheap_requests_are_limited() {
    check_cheap_requests(&Lab::on_postgres(
        &[],
        &json!({"defaults": {"session-quota": 2}}),
    ));
}

#[test]
fn cheap_requests_are_limited_on_sqlite() {
    check_cheap_requests(&Lab::on_sqlite(
        &[],
        &json!({"defaults": {"session-quota": 2}}),
    ));
}

#[test]
fn history_requests_need_a_key_and_valid_parameters() {
    let lab = Lab::on_sqlite(&[Pool::simulated("small", 1, &json!({}))], &json!({}));
    let _serve = lab.start(&["serve"]);
    let tenant = lab.tenant();
    for path in ["nodes/1/events", "sessions/1/events"] {
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", lab.port());
        assert_eq!(http("GET", &url, None, None).unwrap().status, 401);
        assert_eq!(tenant.call("GET", path, None).unwrap().status, 404);
        let reply = tenant.call("POST", path, None).unwrap();
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("GET")),
            "{path}"
        );
    }
    for (path, errors) in [
        ("nodes/x/events", json!([["int_parsing", ["path", "id"]]])),
        (
            "nodes/1/events?limit=0",
            json!([["greater_than_equal", ["query", "limit"]]]),
        ),
        (
            "nodes/1/events?limit=5&limit=10001",
            json!([["less_than_equal", ["query", "limit"]]]),
        ),
        (
            "sessions/y/events?limit=&after=%2D1",
            json!([
                ["int_parsing", ["path", "id"]],
                ["int_parsing", ["query", "limit"]],
                ["greater_than_equal", ["query", "after"]]
            ]),
        ),
        (
            "nodes/1/events?after=9223372036854775808",
            json!([["less_than_equal", ["query", "after"]]]),
        ),
    ] {
        let reply = tenant.call("GET", path, None).unwrap();
        assert_eq!(reply.status, 422, "{path}: {}", reply.text);
        let fields = reply.json["detail"].as_array().unwrap().iter();
        let fields: Value = fields.map(|f| json!([f["type"], f["loc"]])).collect();
        assert_eq!(fields, errors, "{path}");
    }
}
