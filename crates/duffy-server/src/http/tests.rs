//! The router as a client sees it: routes, methods, headers, permissions, and the order in which
//! errors are found.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use duffy_api::TenantCreate;
use duffy_config::DatabaseUrl;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::router::{openapi_document, router};
use crate::context::{Context, Ctx};
use crate::credentials::Credentials;
use crate::db::tenants::{insert_tenant, set_tenant_active};
use crate::db::{Db, DbError, migrate};

mod proxies;

const CONFIG: &str = "
app: {trusted-proxies: [10.0.0.0/8]}
defaults: {session-lifetime: 6h, session-lifetime-max: 12h, node-quota: 10}
nodepools:
  abstract:
    abstract: {mechanism: {type: simulated, simulated: {}}}
  concrete:
    pool: {extends: abstract, fill-level: 1}
";

/// Three tenants: `admin` is 1, `tenant` is 2, `retired` is 4. The key of each is its name. The
/// database is removed with the directory.
async fn context(down: bool) -> (Ctx, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("duffy.yaml");
    std::fs::write(&file, CONFIG).unwrap();
    let config = Arc::new(duffy_config::load_files(&[file]).unwrap());
    let path = directory.path().join("duffy.sqlite");
    let db = Db::open(&DatabaseUrl::Sqlite { path }, 5, true)
        .await
        .unwrap();
    migrate::setup_db(&db).await.unwrap();
    let ctx = Context::with_database(config, db, Credentials::with_cost(4)).unwrap();
    for name in ["admin", "tenant", "gone", "retired"] {
        let key = &ctx.credentials.hash(name).await.unwrap();
        let tenant = TenantCreate {
            name: name.into(),
            is_admin: name == "admin",
            ssh_key: "key".into(),
            node_quota: None,
            session_lifetime: None,
            session_lifetime_max: None,
        };
        let tenant = &tenant;
        ctx.db
            .transaction(async |mut tx| -> Result<_, DbError> {
                let row = insert_tenant(&mut tx, tenant, key).await?;
                set_tenant_active(&mut tx, row.id, tenant.name != "retired").await?;
                Ok(())
            })
            .await
            .unwrap();
    }
    if down {
        ctx.db.close().await;
    }
    (ctx, directory)
}

/// The router, and the directory of its database.
struct Api(Router, #[expect(dead_code, reason = "kept")] TempDir);

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Types and paths of the invalid fields.
    fn fields(&self) -> Value {
        let fields = self.body["detail"].as_array().unwrap().iter();
        fields.map(|f| json!([f["type"], f["loc"]])).collect()
    }
}

impl Api {
    fn on((ctx, directory): (Ctx, TempDir)) -> Self {
        Self(router(ctx), directory)
    }

    async fn new() -> Self {
        Self::on(context(false).await)
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let reply = self.0.clone().oneshot(request).await.unwrap();
        let (parts, body) = reply.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        assert!(parts.headers.contains_key("x-request-id"), "no request id");
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into())),
        }
    }

    async fn ask(&self, method: &str, path: &str, who: &str, body: &[u8]) -> Reply {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        if !who.is_empty() {
            let encoded = base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                format!("{who}:{who}"),
            );
            request = request.header("authorization", format!("Basic {encoded}"));
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        self.send(request).await
    }

    async fn get(&self, path: &str, who: &str) -> Reply {
        self.ask("GET", path, who, b"").await
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let api = Api::new().await;
    for path in [
        "/",
        "/api/v1",
        "/api/v1/nope",
        "/API/v1/pools",
        "/api/v1/pools/nope",
        "/docs/nope",
        "/docs/index.html",
        "/docs/swagger-initializer.js",
        "/api/v1/sessions/a%2Fb",
        "/api/v1/sessions/1",
        "/api/v1/sessions/-1",
        "/api/v1/nodes/99999999999999999999",
        "/api/v1/tenants/99999999999999999999999999999999999999999999999999",
    ] {
        let reply = api.get(path, "tenant").await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.body, json!({"detail": "Not Found"}), "{path}");
    }
    let reply = api.get("/api/v1/pools/abstract", "").await;
    assert_eq!(reply.status, 422);
    assert_eq!(reply.body, json!({"detail": "Unprocessable Entity"}));
}

#[tokio::test]
async fn other_methods_are_refused_and_the_right_ones_named() {
    let api = Api::new().await;
    for (method, path, allow) in [
        ("POST", "/api/v1/pools", "GET"),
        ("HEAD", "/api/v1/pools", "GET"),
        ("HEAD", "/api/v1/sessions", "GET, POST"),
        ("OPTIONS", "/api/v1/sessions", "GET, POST"),
        ("DELETE", "/api/v1/sessions/1", "GET, PUT"),
        ("DELETE", "/api/v1/sessions/x", "GET, PUT"),
        ("FOO", "/api/v1/nodes/1", "GET"),
        ("PATCH", "/api/v1/tenants/1", "GET, PUT"),
        ("POST", "/docs", "GET, HEAD"),
        ("PUT", "/healthz", "GET, HEAD"),
    ] {
        let reply = api.ask(method, path, "", b"").await;
        assert_eq!(reply.status, 405, "{method} {path}");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
        if method != "HEAD" {
            assert_eq!(reply.body, json!({"detail": "Method Not Allowed"}));
        }
    }
}

#[tokio::test]
async fn a_slash_at_the_end_leads_to_the_path_without() {
    let api = Api::new().await;
    for (method, path, location) in [
        ("GET", "/api/v1/pools/", "/api/v1/pools"),
        ("GET", "/api/v1/sessions/?a=b", "/api/v1/sessions?a=b"),
        ("POST", "/api/v1/sessions/", "/api/v1/sessions"),
        ("DELETE", "/api/v1/tenants/x/", "/api/v1/tenants/x"),
        ("GET", "/docs/", "/docs"),
        ("GET", "/openapi.json/", "/openapi.json"),
    ] {
        let reply = api.ask(method, path, "", b"").await;
        assert_eq!(reply.status, 307, "{path}");
        assert_eq!(reply.header("location"), Some(location));
    }
}

#[tokio::test]
async fn who_asks_is_checked() {
    let api = Api::new().await;
    let reply = api.get("/api/v1/tenants", "").await;
    assert_eq!(reply.status, 401);
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Basic realm=\"duffy\"")
    );
    assert_eq!(reply.body, json!({"detail": "Not authenticated"}));
    let reply = api.get("/api/v1/tenants", "nobody").await;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("www-authenticate"), None);
    assert_eq!(reply.body, json!({"detail": "Unauthorized"}));
    let reply = api.get("/api/v1/tenants", "no\0body").await;
    assert_eq!(reply.status, 401);
    for path in ["/api/v1/tenants", "/api/v1/sessions"] {
        let reply = api.get(path, "retired").await;
        assert_eq!(reply.status, 403, "{path}");
        assert_eq!(reply.body, json!({"detail": "Forbidden"}));
        assert_eq!(api.get(path, "tenant").await.status, 200, "{path}");
    }
    assert_eq!(api.get("/api/v1/sessions", "").await.status, 200);
    assert_eq!(api.get("/api/v1/sessions", "nobody").await.status, 401);
    assert_eq!(api.get("/api/v1/nodes", "").await.status, 200);
    assert_eq!(api.get("/api/v1/nodes/1", "").await.status, 401);
}

#[tokio::test]
async fn the_body_is_read_before_the_credentials_and_the_fields_after() {
    let api = Api::new().await;
    let sessions = "/api/v1/sessions";
    let reply = api.ask("POST", sessions, "", b"{nope").await;
    assert_eq!(reply.status, 422);
    assert_eq!(reply.fields(), json!([["json_invalid", ["body", 1]]]));
    assert_eq!(reply.body["detail"][0]["input"], json!({}));
    let reply = api.ask("POST", sessions, "", b"\xff").await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.body,
        json!({"detail": "There was an error parsing the body"})
    );
    let reply = api
        .ask("POST", sessions, "", &vec![b' '; 1024 * 1024 + 1])
        .await;
    assert_eq!(reply.status, 413);
    let reply = api.ask("POST", sessions, "", b"[1]").await;
    assert_eq!(reply.status, 401);
    let reply = api.ask("POST", sessions, "tenant", b"[1]").await;
    assert_eq!(reply.fields(), json!([["model_attributes_type", ["body"]]]));
    let reply = api.ask("PUT", "/api/v1/sessions/abc", "", b"{}").await;
    assert_eq!(reply.status, 401);
    let reply = api
        .ask(
            "PUT",
            "/api/v1/sessions/abc",
            "tenant",
            br#"{"active": "maybe"}"#,
        )
        .await;
    assert_eq!(
        reply.fields(),
        json!([
            ["int_parsing", ["path", "id"]],
            ["bool_parsing", ["body", "active"]]
        ])
    );
    let reply = api
        .ask(
            "PUT",
            "/api/v1/sessions/99999999999999999999",
            "tenant",
            b"{}",
        )
        .await;
    assert_eq!(reply.status, 404);
    // The administrator's permission is checked last.
    let reply = api.ask("POST", "/api/v1/nodes", "tenant", b"{}").await;
    assert_eq!(reply.status, 422);
    let node = br#"{"hostname": "h", "ipaddr": "192.0.2.1"}"#;
    let reply = api.ask("POST", "/api/v1/nodes", "tenant", node).await;
    assert_eq!(reply.status, 403);
    let reply = api.ask("POST", "/api/v1/nodes", "admin", node).await;
    assert_eq!(reply.status, 201);
    let reply = api.ask("POST", "/api/v1/nodes", "admin", node).await;
    assert_eq!(reply.status, 409);
}

#[tokio::test]
async fn a_body_that_grows_beyond_the_limit_is_refused() {
    let api = Api::new().await;
    let parts = (0..2000).map(|_| Ok::<_, std::io::Error>("x".repeat(1000)));
    let request = Request::post("/api/v1/sessions")
        .body(Body::from_stream(futures::stream::iter(parts)))
        .unwrap();
    let reply = api.send(request).await;
    assert_eq!(reply.status, 413);
    assert_eq!(
        reply.body,
        json!({"detail": "The body is larger than 1 MiB"})
    );
}

#[tokio::test]
async fn without_the_database_it_is_unavailable_and_says_when_to_come_again() {
    let api = Api::on(context(true).await);
    for path in [
        "/healthz",
        "/api/v1/nodes",
        "/api/v1/sessions",
        "/api/v1/pools/pool",
    ] {
        let reply = api.get(path, "").await;
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.header("retry-after"), Some("1"), "{path}");
    }
    assert_eq!(api.get("/api/v1/tenants", "tenant").await.status, 503);
    let api = Api::new().await;
    let reply = api.get("/healthz", "").await;
    assert_eq!(
        (reply.status, reply.body),
        (StatusCode::OK, json!({"status": "ok"}))
    );
}

#[tokio::test]
async fn requests_have_ids_of_their_own() {
    let api = Api::new().await;
    let first = api.get("/api/v1/pools", "").await;
    let second = api.get("/nope", "").await;
    let id =
        |reply: &Reply| -> uuid::Uuid { reply.header("x-request-id").unwrap().parse().unwrap() };
    assert_ne!(id(&first), id(&second));
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere() {
    let api = Api::new().await;
    let mut seen = 0;
    for page in ["/docs", "/redoc"] {
        let reply = api.get(page, "").await;
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let policy = reply.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("http"),
            "{policy}"
        );
        let html = reply.body.as_str().unwrap();
        assert!(!html.contains("//"), "{html}");
        for part in html.split(['"', '\n']).filter(|part| part.contains('/')) {
            if !part.starts_with("docs/") && !part.starts_with("redoc/") {
                continue;
            }
            let reply = api.get(&format!("/{part}"), "").await;
            assert_eq!(reply.status, 200, "{part}");
            assert_eq!(reply.header("content-encoding"), None, "{part}");
            seen += 1;
        }
        assert_eq!(api.ask("HEAD", page, "", b"").await.status, 200);
    }
    assert_eq!(seen, 6);
    let reply = api.get("/redoc/redoc.standalone.js", "").await;
    let script = reply.body.as_str().unwrap();
    for host in ["cdn.redoc.ly", "fonts.googleapis.com", "cdn.jsdelivr.net"] {
        assert!(!script.contains(host), "{host}");
    }
}

#[tokio::test]
async fn the_description_has_all_that_is_served() {
    let api = Api::new().await;
    let reply = api.get("/openapi.json", "").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let document = reply.body;
    assert_eq!(document, serde_json::to_value(openapi_document()).unwrap());
    assert_eq!(document["info"]["title"], "Duffy");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let endpoints: Vec<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(
        endpoints,
        [
            "get /api/v1/nodes",
            "post /api/v1/nodes",
            "get /api/v1/nodes/{id}",
            "get /api/v1/nodes/{id}/events",
            "get /api/v1/pools",
            "get /api/v1/pools/{name}",
            "get /api/v1/sessions",
            "post /api/v1/sessions",
            "get /api/v1/sessions/{id}",
            "put /api/v1/sessions/{id}",
            "get /api/v1/sessions/{id}/events",
            "get /api/v1/tenants",
            "post /api/v1/tenants",
            "get /api/v1/tenants/{id}",
            "put /api/v1/tenants/{id}",
        ]
    );
    for path in document["paths"].as_object().unwrap().values() {
        for operation in path.as_object().unwrap().values() {
            let text = operation.to_string();
            assert!(
                operation["tags"]
                    .as_array()
                    .is_some_and(|tags| tags.len() == 1),
                "{text}"
            );
            assert!(operation["summary"].is_string(), "{text}");
            assert!(operation["operationId"].is_string(), "{text}");
            assert!(operation["responses"]["500"].is_object(), "{text}");
        }
    }
    assert_eq!(
        document["components"]["securitySchemes"]["HTTPBasic"]["scheme"],
        "basic"
    );
    // Every reference has its target.
    let text = document.to_string();
    for reference in text.split("\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}
