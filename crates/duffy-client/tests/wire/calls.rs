//! What each method sends, and how it returns replies.

use std::time::Duration;

use crate::peer::{Answer, Peer, reply};
use duffy_api::{NodeCreate, NodesSpec, PoolResultCollection, SessionUpdate};
use duffy_client::{Client, ClientError, Settings};
use secrecy::SecretString;
use serde_json::json;

fn client(url: &str) -> Client {
    Client::new(&Settings {
        url: url.to_owned(),
        name: "tenant".to_owned(),
        key: SecretString::from("secret-key"),
        timeout: None,
        user_agent: "duffy-test/1".to_owned(),
        ca_file: None,
    })
    .unwrap()
}

#[test]
fn each_method_calls_its_endpoint() {
    let peer = Peer::start((0..16).map(|_| reply("200 OK", "", "{}")).collect());
    let client = client(&format!("{}/", peer.url()));
    let spec = NodesSpec {
        quantity: 2,
        pool: "a".to_owned(),
    };
    let expiry = SessionUpdate {
        active: None,
        expires_at: Some("+1h".to_owned()),
    };
    let node: NodeCreate =
        serde_json::from_value(json!({"hostname": "n", "ipaddr": "::1"})).unwrap();
    client.list_sessions().unwrap();
    client.show_session(-7).unwrap();
    client.request_session(&[spec], Some("key-1")).unwrap();
    client.update_session(7, &expiry).unwrap();
    client.retire_session(7).unwrap();
    client.list_pools().unwrap();
    client.show_pool("a/../b é").unwrap();
    client.list_nodes().unwrap();
    client.show_node(3).unwrap();
    client.list_node_events(3, 17, 5).unwrap();
    client.list_session_events(7, 0, 1000).unwrap();
    client.create_node(&node).unwrap();
    client.list_tenants().unwrap();
    client.show_tenant(4).unwrap();
    client.create_tenant(&json!({"name": "t"})).unwrap();
    client.update_tenant(4, &json!({"active": false})).unwrap();

    let requests = peer.finish();
    let lines: Vec<_> = requests
        .iter()
        .map(|r| format!("{} {}", r.line().trim_end_matches(" HTTP/1.1"), r.body))
        .collect();
    assert_eq!(
        lines,
        [
            "GET /api/v1/sessions ",
            "GET /api/v1/sessions/-7 ",
            r#"POST /api/v1/sessions {"nodes_specs":[{"quantity":2,"pool":"a"}]}"#,
            r#"PUT /api/v1/sessions/7 {"expires_at":"+1h"}"#,
            r#"PUT /api/v1/sessions/7 {"active":false}"#,
            "GET /api/v1/pools ",
            "GET /api/v1/pools/a%2F..%2Fb%20%C3%A9 ",
            "GET /api/v1/nodes ",
            "GET /api/v1/nodes/3 ",
            "GET /api/v1/nodes/3/events?after=17&limit=5 ",
            "GET /api/v1/sessions/7/events?after=0&limit=1000 ",
            r#"POST /api/v1/nodes {"hostname":"n","ipaddr":"::1","comment":null,"pool":null,"reusable":true,"data":{}}"#,
            "GET /api/v1/tenants ",
            "GET /api/v1/tenants/4 ",
            r#"POST /api/v1/tenants {"name":"t"}"#,
            r#"PUT /api/v1/tenants/4 {"active":false}"#,
        ]
    );
    for request in &requests {
        assert_eq!(
            request.connection,
            0,
            "the connection is used again: {}",
            request.line()
        );
        // "tenant:secret-key"
        assert_eq!(
            request.header("authorization"),
            Some("Basic dGVuYW50OnNlY3JldC1rZXk=")
        );
        assert_eq!(request.header("accept"), Some("application/json"));
        assert_eq!(request.header("user-agent"), Some("duffy-test/1"));
        assert_eq!(request.header("x-request-id"), None);
        let key = request.line().starts_with("POST /api/v1/sessions ");
        assert_eq!(request.header("idempotency-key"), key.then_some("key-1"));
        let json = (!request.body.is_empty()).then_some("application/json");
        assert_eq!(request.header("content-type"), json);
    }
}

#[test]
fn another_tenant_and_a_request_id_share_the_connection() {
    let peer = Peer::start(vec![
        reply("200 OK", "X-Request-Id: from-server\r\n", "{}"),
        reply("200 OK", "", "{}"),
    ]);
    let client = client(&peer.url());
    let other = client
        .clone()
        .with_tenant("other", &SecretString::from("k"))
        .unwrap();
    let first = other
        .with_request_id("abc-1")
        .unwrap()
        .list_pools()
        .unwrap();
    assert_eq!(first.request_id(), Some("from-server"));
    client.list_pools().unwrap();
    assert!(matches!(
        client.clone().with_request_id("a\nb"),
        Err(ClientError::Header { .. })
    ));
    let requests = peer.finish();
    assert_eq!(
        requests[0].header("authorization"),
        Some("Basic b3RoZXI6aw==")
    );
    assert_eq!(requests[0].header("x-request-id"), Some("abc-1"));
    assert_eq!(
        requests[1].header("authorization"),
        Some("Basic dGVuYW50OnNlY3JldC1rZXk=")
    );
    assert_eq!((requests[0].connection, requests[1].connection), (0, 0));
}

#[test]
fn a_client_can_have_no_tenant_and_another_timeout() {
    let peer = Peer::start(vec![
        reply("200 OK", "", r#"{"status":"ok"}"#),
        Answer::Silence,
    ]);
    let client = client(&peer.url()).without_tenant();
    client.check_health().unwrap();
    let limit = Duration::from_millis(50);
    let impatient = client.with_timeout(Some(limit));
    let error = impatient.list_pools().unwrap_err();
    assert!(
        matches!(error, ClientError::Timeout { after, write: false, .. } if after == limit),
        "{error}"
    );
    // Closes the connection on which the peer is silent.
    drop(impatient);
    let requests = peer.finish();
    assert_eq!(requests[0].line(), "GET /healthz HTTP/1.1");
    assert_eq!(requests[0].header("authorization"), None);
}

#[test]
fn replies_are_returned_as_sent_and_typed() {
    let body =
        r#"{"new":1,"pools":[{"z":null,"fill-level":2,"name":"b"}],"action":"get","a":21600.0}"#;
    let peer = Peer::start(vec![reply("200 OK", "", body)]);
    let reply = client(&peer.url()).list_pools().unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(
        reply.json().to_string(),
        body,
        "order of members and form of numbers"
    );
    let pools: PoolResultCollection = reply.parse().unwrap();
    assert_eq!(
        (pools.pools[0].name.as_str(), pools.pools[0].fill_level),
        ("b", 2)
    );
    let error = reply
        .parse::<duffy_api::SessionResult>()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("missing field `session`") && error.contains("/api/v1/pools"),
        "{error}"
    );
}

#[test]
fn a_connection_that_the_server_closed_is_replaced() {
    let whole = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let peer = Peer::start(vec![Answer::Last(whole("{}")), Answer::Last(whole("[]"))]);
    let client = client(&peer.url());
    client.list_pools().unwrap();
    // When the peer waits for the second connection, it has closed the first one. A write must not fail on that.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match client.retire_session(1) {
            Ok(reply) => {
                assert_eq!(reply.json(), &json!([]));
                break;
            }
            // The client has not received the end of the connection yet.
            Err(ClientError::Broken { .. }) if std::time::Instant::now() < deadline => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A session that is retired as `active` says, as a reply to `action`.
fn session(action: &str, active: bool) -> String {
    json!({"action": action, "session": {"id": 7, "active": active}}).to_string()
}

#[test]
fn a_retirement_whose_answer_was_lost_succeeds() {
    let retired = r#"{"detail": "session 7 is retired"}"#;
    let peer = Peer::start(vec![
        Answer::Last(Vec::new()),
        reply("422 Whatever", "", retired),
        reply("200 OK", "", &session("get", false)),
    ]);
    let mut pauses = 0;
    let done = client(&peer.url()).retire_session_surely(7, |_, _| pauses += 1);
    assert_eq!(
        done.unwrap().json().to_string(),
        session("put", false),
        "the answer of the first call"
    );
    assert_eq!(pauses, 1);
    assert_eq!(peer.finish().len(), 3);
}

#[test]
fn retiring_twice_is_refused() {
    let retired = r#"{"detail": "session 7 is retired"}"#;
    let peer = Peer::start(vec![reply("422 Whatever", "", retired)]);
    let refused = client(&peer.url()).retire_session_surely(7, |_, _| {});
    assert!(matches!(refused, Err(ClientError::Refused(_))));
    peer.finish();
}
