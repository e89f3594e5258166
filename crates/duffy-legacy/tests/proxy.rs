//! The proxy over real connections, with a web API that gives the answers of a test.
#![expect(
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking"
)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use duffy_legacy::{Limits, Times};
use rig::{Answer, KEY, Old, Web};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

const GET: &str = "/Node/get?ver=8-stream&key=";

fn session(id: i64) -> Answer {
    let body = json!({"action": "post", "session": {
        "id": id, "nodes": [{"hostname": "n1.lab.test"}, {"hostname": null}]
    }});
    Arc::new(move |_| (StatusCode::CREATED, Json(body.clone())).into_response())
}

fn status(status: u16, body: Value) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    Arc::new(move |_| (status, Json(body.clone())).into_response())
}

fn text(words: &'static str) -> Answer {
    Arc::new(move |_| words.into_response())
}

/// Every endpoint with a valid key, and its text when it fails.
const FAILURES: [(&str, &str); 5] = [
    ("/Node/get?ver=8-stream&key=KEY", "Failed to allocate nodes"),
    (
        "/Node/done?ssid=7&key=KEY",
        "Failed to return nodes on completion",
    ),
    (
        "/Node/fail?ssid=7&key=KEY",
        "Failed to change expiration time",
    ),
    (
        "/Inventory?key=KEY",
        "Failed to retrieve inventory of nodes",
    ),
    ("/Inventory", "Failed to retrieve inventory of nodes"),
];

async fn assert_all_fail(old: &Old, why: &str) {
    for (path, words) in FAILURES {
        let reply = old.get(&path.replace("KEY", KEY)).await;
        assert_eq!(
            (reply.status, &reply.json),
            (200, &json!(words)),
            "{why}: {path}"
        );
        assert!(reply.head.contains("x-request-id: "), "{}", reply.head);
    }
}

#[tokio::test]
async fn nodes_are_requested_with_the_tenants_key() {
    let web = Web::start(session(7)).await;
    let old = Old::start(&web.url).await;
    let reply = old
        .get(&format!("{GET}{KEY}&count=2&arch=aarch64&flavor=small"))
        .await;
    assert_eq!(reply.status, 200);
    // For a node without a host name, the template gives an empty text.
    assert_eq!(reply.json, json!({"ssid": 7, "hosts": ["n1", ""]}));
    assert!(
        reply.head.contains("content-type: application/json"),
        "{}",
        reply.head
    );
    let asked = web.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line, "POST /api/v1/sessions");
    assert_eq!(
        asked[0].body,
        r#"{"nodes_specs":[{"quantity":2,"pool":"virtual-8stream-aarch64-small"}]}"#
    );
    assert_eq!(asked[0].authorization.as_deref(), Some(rig::AUTHORIZATION));
    let id = asked[0].request_id.as_deref().unwrap();
    assert!(
        reply.head.contains(&format!("x-request-id: {id}\r\n")),
        "{}",
        reply.head
    );
}

#[tokio::test]
async fn sessions_are_retired_and_extended() {
    let web = Web::start(status(200, json!({"action": "put", "session": {}}))).await;
    let old = Old::start(&web.url).await;
    for path in ["/Node/done?ssid=7&key=", "/Node/fail?ssid=8&key="] {
        let reply = old.get(&format!("{path}{KEY}")).await;
        assert_eq!((reply.status, reply.json), (200, json!("Done")));
    }
    let asked: Vec<_> = web
        .asked()
        .into_iter()
        .map(|asked| asked.line + &asked.body)
        .collect();
    assert_eq!(
        asked,
        [
            r#"PUT /api/v1/sessions/7{"active":false}"#,
            r#"PUT /api/v1/sessions/8{"expires_at":"+6h"}"#,
        ]
    );
}

#[tokio::test]
async fn inventories_have_the_old_columns() {
    let node = json!({"id": 3, "hostname": "n1.lab.test", "ipaddr": "192.0.2.1", "state": "deployed", "pool": "p"});
    let sessions = json!({"sessions": [{"id": 7, "nodes": [node]}, {"id": 8, "nodes": []}]});
    let web = Web::start(status(200, sessions)).await;
    let old = Old::start(&web.url).await;
    let own = old.get(&format!("/Inventory?key={KEY}")).await;
    assert_eq!(own.json, json!([["n1", 7]]));
    for path in ["/Inventory", "/Inventory?key="] {
        let all = old.get(path).await;
        assert_eq!(
            all.json,
            json!([[
                3,
                "n1",
                "192.0.2.1",
                null,
                0,
                "deployed",
                "7",
                null,
                null,
                null,
                null,
                "p",
                null,
                null
            ]])
        );
    }
    let asked = web.asked();
    let authorizations: Vec<_> = asked
        .iter()
        .map(|asked| asked.authorization.as_deref())
        .collect();
    assert_eq!(authorizations, [Some(rig::AUTHORIZATION), None, None]);
}

#[tokio::test]
async fn refused_requests_make_no_calls() {
    let web = Web::start(session(7)).await;
    let old = Old::start(&web.url).await;
    let detail = |words: &str| json!({ "detail": words });
    let failed = json!("Failed to allocate nodes");
    for (path, expected_status, body) in [
        ("/Node/get", 403, detail("Not authenticated")),
        ("/Node/get?key=", 403, detail("Not authenticated")),
        ("/Node/get?key=nope&count=abc", 403, detail("Forbidden")),
        ("/Node/done?ssid=1", 403, detail("Not authenticated")),
        ("/Node/fail?ssid=1&key=nope", 403, detail("Forbidden")),
        ("/Inventory?key=nope", 403, detail("Forbidden")),
        ("/Node/get?ver=none&key=KEY", 200, failed.clone()),
        ("/Node/get?ver=broken&key=KEY", 200, failed.clone()),
        (
            "/Node/get?ver=8-stream&count=0&key=KEY",
            200,
            failed.clone(),
        ),
        ("/Node/get?ver=8-stream&count=-3&key=KEY", 200, failed),
        (
            "/Node/done?key=KEY",
            200,
            json!("Some parameters are absent"),
        ),
        (
            "/Node/fail?key=KEY&ssid=",
            200,
            json!("Some parameters are absent"),
        ),
        (
            "/Node/done?key=KEY&ssid=7/../8",
            200,
            json!("Failed to return nodes on completion"),
        ),
        (
            "/Node/fail?key=KEY&ssid=abc",
            200,
            json!("Failed to change expiration time"),
        ),
        ("/node/get?key=KEY", 404, detail("Not Found")),
        ("/", 404, detail("Not Found")),
    ] {
        let reply = old.get(&path.replace("KEY", KEY)).await;
        assert_eq!(
            (reply.status, reply.json),
            (expected_status, body),
            "{path}"
        );
    }
    let reply = old.get(&format!("{GET}{KEY}&count=abc")).await;
    assert_eq!(reply.status, 422);
    assert_eq!(reply.json["detail"][0]["loc"], json!(["query", "count"]));
    for method in ["POST", "HEAD", "DELETE"] {
        let reply = old.ask(method, &format!("{GET}{KEY}")).await;
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.head.contains("allow: GET\r\n"), "{}", reply.head);
    }
    let reply = old.get("/Node/get/?ver=8&key=x").await;
    assert_eq!(reply.status, 307);
    assert!(
        reply.head.contains("location: /Node/get?ver=8&key=x\r\n"),
        "{}",
        reply.head
    );
    assert_eq!(web.asked().len(), 0);
}

#[tokio::test]
async fn a_key_that_the_web_api_refuses_is_reported() {
    for refusal in [401, 403] {
        let web = Web::start(status(refusal, json!({"detail": "Forbidden"}))).await;
        let old = Old::start(&web.url).await;
        for path in [
            "/Node/done?ssid=3&key=",
            "/Node/fail?ssid=3&key=",
            "/Inventory?key=",
        ] {
            let reply = old.get(&format!("{path}{KEY}")).await;
            assert_eq!(
                (reply.status, reply.json),
                (403, json!({"msg": "Invalid duffy key"})),
                "{path}"
            );
        }
        let reply = old.get(&format!("{GET}{KEY}")).await;
        assert_eq!(
            (reply.status, reply.json),
            (200, json!("Failed to allocate nodes"))
        );
        let reply = old.get("/Inventory").await;
        assert_eq!(
            (reply.status, reply.json),
            (200, json!("Failed to retrieve inventory of nodes"))
        );
    }
}

#[tokio::test]
async fn errors_and_invalid_replies_of_the_web_api_are_failures() {
    for (why, answer) in [
        (
            "fails",
            status(500, json!({"detail": "Internal Server Error"})),
        ),
        ("is busy", status(503, json!({"detail": "Not now"}))),
        (
            "has no such endpoint",
            status(404, json!({"detail": "Not Found"})),
        ),
        ("is another site", text("<html>")),
        ("has other members", status(200, json!({"answer": 42}))),
        ("answers a list", status(201, json!([1, 2]))),
        (
            "redirects",
            Arc::new(|_: &rig::Asked| {
                (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response()
            }) as Answer,
        ),
    ] {
        let web = Web::start(answer).await;
        let old = Old::start(&web.url).await;
        // Any reply with the status 200 means that the session is retired or extended.
        let words = if why == "has other members" {
            &FAILURES[..1]
        } else {
            &FAILURES[..]
        };
        for (path, words) in words {
            let reply = old.get(&path.replace("KEY", KEY)).await;
            assert_eq!(
                (reply.status, &reply.json),
                (200, &json!(words)),
                "{why}: {path}"
            );
        }
        assert_eq!(web.asked().len(), words.len(), "{why}: one request each");
    }
}

#[tokio::test]
async fn a_web_api_that_does_not_answer_is_a_failure() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let old = Old::start(&format!("http://{address}")).await;
    assert_all_fail(&old, "down").await;
    assert_eq!(old.get("/healthz").await.status, 503);

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limit = Duration::from_millis(50);
    let times = Times {
        read: limit,
        write: limit,
        grant: limit,
        health: limit,
        ..Times::default()
    };
    let url = format!("http://{}", silent.local_addr().unwrap());
    let old = Old::start_with(&url, times, Limits::default()).await;
    assert_all_fail(&old, "silent").await;
    assert_eq!(old.get("/healthz").await.status, 503);
}

#[tokio::test]
async fn a_session_whose_client_hung_up_is_retired() {
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let web = {
        let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
        let grant = session(7);
        Web::start_async(move |request| {
            let (asked, answer, grant) =
                (Arc::clone(&asked), Arc::clone(&answer), Arc::clone(&grant));
            async move {
                if request.line.starts_with("POST") {
                    asked.notify_one();
                    answer.notified().await;
                    return grant(&request);
                }
                Json(json!({"session": {"id": 7}})).into_response()
            }
        })
        .await
    };
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let old = Old::start_with(&web.url, Times::default(), limits).await;
    let mut connection = old.connect().await;
    let head = format!("GET {GET}{KEY} HTTP/1.1\r\nhost: h\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    asked.notified().await;
    drop(connection);
    // The proxy serves one connection at a time. When it serves another one, it knows that this one is closed.
    old.get("/docs").await;
    answer.notify_one();
    let retired = web.wait_for_asked(2).await;
    assert_eq!(retired[1].line, "PUT /api/v1/sessions/7");
    assert_eq!(retired[1].body, r#"{"active":false}"#);
    assert_eq!(retired[1].request_id, retired[0].request_id);
    assert_eq!(
        retired[1].authorization.as_deref(),
        Some(rig::AUTHORIZATION)
    );
}

#[tokio::test]
async fn retiring_an_invalid_session_is_repeated() {
    // The session has no list of nodes, so the reply cannot have the hosts. The first attempt to retire it fails.
    let web = Web::start_numbered(|number, _| match number {
        0 => (StatusCode::CREATED, Json(json!({"session": {"id": 9}}))).into_response(),
        1 => StatusCode::BAD_GATEWAY.into_response(),
        _ => Json(json!({"session": {"id": 9}})).into_response(),
    })
    .await;
    let times = Times {
        retire_pause: Duration::from_millis(1),
        ..Times::default()
    };
    let old = Old::start_with(&web.url, times, Limits::default()).await;
    let reply = old.get(&format!("{GET}{KEY}")).await;
    assert_eq!(reply.json, json!("Failed to allocate nodes"));
    let asked = web.wait_for_asked(3).await;
    assert_eq!(asked[2].line, "PUT /api/v1/sessions/9");
    // Stopping waits until all sessions are retired. There is no other one.
    old.stop().await;
    assert_eq!(web.asked().len(), 3);
}

#[tokio::test]
async fn stopping_lets_a_request_end() {
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let web = {
        let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
        Web::start_async(move |_| {
            let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
            async move {
                asked.notify_one();
                answer.notified().await;
                Json(json!({"sessions": []})).into_response()
            }
        })
        .await
    };
    let old = Old::start(&web.url).await;
    let (reply, ()) = tokio::join!(old.get("/Inventory"), async {
        asked.notified().await;
        old.order_stop();
        answer.notify_one();
    });
    assert_eq!(reply.json, json!([]));
    old.stop().await;
}

#[tokio::test]
async fn many_polls_share_requests_and_connections() {
    let web = Web::start(status(200, json!({"sessions": []}))).await;
    let old = Old::start(&web.url).await;
    let polls = (0..200).map(|_| old.get("/Inventory"));
    let replies = futures::future::join_all(polls).await;
    assert!(replies.iter().all(|reply| reply.json == json!([])));
    assert!((1..200).contains(&web.asked().len()));
    // Open connections are used again.
    let before = web.connections();
    assert!(before <= 64, "{before} connections");
    for _ in 0..20 {
        old.get("/Inventory").await;
    }
    assert_eq!(web.connections(), before);
}

#[tokio::test]
async fn requests_that_wait_too_long_fail() {
    let web = Web::start_async(|_| std::future::pending()).await;
    let times = Times {
        queue: Duration::from_millis(50),
        read: Duration::from_secs(20),
        ..Times::default()
    };
    let old = Old::start_with(&web.url, times, Limits::default()).await;
    let mut waiting = Vec::new();
    let done = format!("/Node/done?ssid=1&key={KEY}");
    let request = format!("GET {done} HTTP/1.1\r\nhost: h\r\n\r\n");
    for _ in 0..64 {
        let mut connection = old.connect().await;
        connection.write_all(request.as_bytes()).await.unwrap();
        waiting.push(connection);
    }
    web.wait_for_asked(64).await;
    let reply = old.get(&done).await;
    assert_eq!(reply.json, json!("Failed to return nodes on completion"));
    assert_eq!(web.asked().len(), 64);
    // Other kinds of requests have their own limits.
    let mut connection = old.connect().await;
    let list = b"GET /Inventory HTTP/1.1\r\nhost: h\r\n\r\n";
    connection.write_all(list).await.unwrap();
    web.wait_for_asked(65).await;
}

#[tokio::test]
async fn the_web_api_gets_the_address_of_the_client() {
    let web = Web::start(status(200, json!({"sessions": []}))).await;
    let old = Old::start(&web.url).await;
    old.get("/Inventory").await;
    let mut connection = old.connect().await;
    let behind_proxy = "GET /Inventory HTTP/1.1\r\nhost: h\r\n\
        x-forwarded-for: 198.51.100.9, 192.0.2.7\r\nx-forwarded-for: 127.0.0.2\r\n\r\n";
    connection.write_all(behind_proxy.as_bytes()).await.unwrap();
    let asked = web.wait_for_asked(2).await;
    let told = asked.iter().map(|asked| asked.forwarded_for.as_deref());
    let told: Vec<_> = told.collect();
    assert_eq!(told, [Some("127.0.0.1"), Some("192.0.2.7")]);
}

#[tokio::test]
async fn health_is_that_of_the_web_api() {
    for (answer, expected) in [
        (status(200, json!({"status": "ok"})), 200),
        (status(503, json!({"detail": "no database"})), 503),
        (text("<html>"), 503),
        // The Python original has no such endpoint, and requires credentials for the list of pools.
        (
            Arc::new(|asked: &rig::Asked| {
                let status = if asked.line.ends_with("/pools") {
                    401
                } else {
                    404
                };
                (
                    StatusCode::from_u16(status).unwrap(),
                    Json(json!({"detail": "x"})),
                )
                    .into_response()
            }) as Answer,
            200,
        ),
    ] {
        let web = Web::start(answer).await;
        let old = Old::start(&web.url).await;
        let reply = old.get("/healthz").await;
        assert_eq!(reply.status, expected, "{}", reply.json);
        assert_eq!(web.asked()[0].line, "GET /healthz");
    }
}

#[tokio::test]
async fn the_documentation_needs_no_other_host() {
    let old = Old::start("http://127.0.0.1:1").await;
    let document = old.get("/openapi.json").await;
    let paths = document.json["paths"].as_object().unwrap();
    for path in [
        "/Node/get",
        "/Node/done",
        "/Node/fail",
        "/Inventory",
        "/healthz",
    ] {
        assert!(paths.contains_key(path), "{path} is not described");
        assert_ne!(old.get(path).await.status, 404, "{path} is described");
    }
    assert_eq!(paths.len(), 5);
    let page = old.get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(
        !page.body.contains("//"),
        "something from another host: {}",
        page.body
    );
    for file in [
        "start.js",
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "favicon-32x32.png",
    ] {
        assert!(page.body.contains(&format!("\"docs/{file}\"")), "{file}");
        assert_eq!(
            old.get(&format!("/docs/{file}")).await.status,
            200,
            "{file}"
        );
    }
    assert_eq!(old.get("/docs/other.js").await.status, 404);
    assert_eq!(old.get("/redoc").await.status, 307);
    assert_eq!(old.ask("POST", "/docs").await.status, 405);
}

#[tokio::test]
async fn slow_and_silent_clients_are_cut_off() {
    let limits = Limits {
        header_read: Duration::from_millis(100),
        idle: Duration::from_millis(200),
        connections: 1,
        ..Limits::default()
    };
    let old = Old::start_with("http://127.0.0.1:1", Times::default(), limits).await;
    for half in ["", "GET /docs HTTP/1.1\r\nhost:"] {
        let mut connection = old.connect().await;
        connection.write_all(half.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Ends only when the server closes the connection.
        connection.read_to_end(&mut rest).await.ok();
        // There is one connection at a time. The proxy serves the next one because this one ended.
        assert_eq!(old.get("/docs").await.status, 200, "{half:?}");
    }
    // A connection that is open and idle.
    let mut connection = old.connect().await;
    connection
        .write_all(b"GET /openapi.json HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).await.unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn invalid_addresses_are_reported_in_one_line() {
    let old = Old::start("http://127.0.0.1:1").await;
    let port = old.address.port();
    let taken = duffy_legacy::bind("127.0.0.1", port).await.unwrap_err();
    assert!(
        taken
            .to_string()
            .contains(&format!("127.0.0.1:{port} is taken")),
        "{taken}"
    );
    for host in ["192.0.2.1", "no such host", ""] {
        let error = duffy_legacy::bind(host, 0).await.unwrap_err().to_string();
        assert!(
            error.contains("not an address of this machine"),
            "{host:?}: {error}"
        );
    }
    for dest in ["ftp://h", "http://h?x=1", "nonsense"] {
        let error = rig::legacy(dest, Times::default()).unwrap_err().to_string();
        assert!(error.contains("set `dest` in `metaclient`"), "{error}");
    }
}
