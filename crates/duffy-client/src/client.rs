//! The client: a method per endpoint, all through one `call`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use duffy_api::{NodeCreate, NodesSpec, SessionCreate, SessionUpdate};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use ureq::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use ureq::{Agent, AsSendBody, Body};

use crate::base_url::BaseUrl;
use crate::error::Call;
use crate::{ClientError, Reply, proxy, tls};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// No list of sessions or nodes of a real site comes near this many bytes.
const BODY_LIMIT: u64 = 64 * 1024 * 1024;

/// How many idle connections are kept: as many as a proxy of the old API has calls at once.
const IDLE_CONNECTIONS: usize = 64;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Whom to ask, and as whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base URL of the API, `http://duffy.example.org:8080/api/v1` say; a trailing slash is fine.
    pub url: String,
    /// Name of the tenant.
    pub name: String,
    /// Key of the tenant.
    pub key: SecretString,
    /// How long a call may take in all. A session can take long to be granted (its nodes are
    /// made ready while the caller waits), so `None` means no limit. Connecting has its own limit of
    /// 10 seconds.
    pub timeout: Option<Duration>,
    /// What the server's log calls this program.
    pub user_agent: String,
    /// PEM file of the certificate authorities to trust instead of those that browsers trust.
    pub ca_file: Option<PathBuf>,
}

/// A client of one API. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: BaseUrl,
    authorization: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    timeout: Option<Duration>,
}

impl Client {
    /// Checks the settings; connects to nothing yet.
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        let base = BaseUrl::parse(&settings.url)?;
        let user_agent = HeaderValue::from_str(&settings.user_agent)
            .ok()
            .and_then(|value| value.to_str().ok().map(str::to_owned))
            .ok_or(ClientError::Header { what: "user agent" })?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // As the original: a redirected write would arrive as a read, and a key should go
            // only where its owner said.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy::from_env(&base)?)
            .tls_config(tls::config(settings.ca_file.as_deref())?)
            .user_agent(user_agent)
            .accept("application/json")
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .build();
        Ok(Self {
            agent: Agent::new_with_config(config),
            authorization: Some(basic(&settings.name, &settings.key)?),
            base,
            request_id: None,
            forwarded_for: None,
            timeout: settings.timeout,
        })
    }

    /// The same client asking as another tenant.
    pub fn with_tenant(&self, name: &str, key: &SecretString) -> Result<Self, ClientError> {
        Ok(Self {
            authorization: Some(basic(name, key)?),
            ..self.clone()
        })
    }

    /// The same client asking as nobody.
    #[must_use]
    pub fn without_tenant(&self) -> Self {
        Self {
            authorization: None,
            ..self.clone()
        }
    }

    /// The same client with another limit to a call, as in [`Settings::timeout`].
    #[must_use]
    pub fn with_timeout(&self, timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// The same client sending this `X-Request-Id`, so that both ends' logs name a request alike.
    pub fn with_request_id(&self, id: &str) -> Result<Self, ClientError> {
        let id =
            HeaderValue::from_str(id).map_err(|_| ClientError::Header { what: "request id" })?;
        Ok(Self {
            request_id: Some(id),
            ..self.clone()
        })
    }

    /// The same client sending `X-Forwarded-For` with the address of the client that it asks for.
    pub fn with_forwarded_for(&self, address: IpAddr) -> Result<Self, ClientError> {
        let address = HeaderValue::from_str(&address.to_string())
            .map_err(|_| ClientError::Header { what: "address" })?;
        Ok(Self {
            forwarded_for: Some(address),
            ..self.clone()
        })
    }

    /// The base URL in use, without user name and trailing slash.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// Whether the server can do its work; [`ClientError::Refused`] or [`ClientError::Unexpected`] when it answers and cannot.
    pub fn check_health(&self) -> Result<Reply, ClientError> {
        self.send(Method::GET, self.base.health(), None, None)
    }

    /// The tenant's running sessions (an administrator's: everybody's).
    pub fn list_sessions(&self) -> Result<Reply, ClientError> {
        self.get(&["sessions"])
    }

    /// One session, running or retired.
    pub fn show_session(&self, id: i64) -> Result<Reply, ClientError> {
        self.get(&["sessions", &id.to_string()])
    }

    /// Asks for a session: all of these nodes, or none.
    ///
    /// Asked again with the same `key` ([`crate::new_key`]), the server answers as it did the
    /// first time, and grants no second session.
    pub fn request_session(
        &self,
        specs: &[NodesSpec],
        key: Option<&str>,
    ) -> Result<Reply, ClientError> {
        let body = SessionCreate {
            tenant_id: None,
            nodes_specs: specs.to_vec(),
        };
        self.create_session(&body, key)
    }

    /// Asks for a session, for another tenant too; `key` as in [`Client::request_session`].
    pub fn create_session(
        &self,
        body: &SessionCreate,
        key: Option<&str>,
    ) -> Result<Reply, ClientError> {
        let key = key.map(HeaderValue::from_str).transpose();
        let key = key.map_err(|_| ClientError::Header {
            what: "idempotency key",
        })?;
        let url = self.base.join(&["sessions"]);
        self.send(Method::POST, url, Some(&json!(body)), key)
    }

    /// Changes when a session ends, or retires it.
    pub fn update_session(&self, id: i64, update: &SessionUpdate) -> Result<Reply, ClientError> {
        self.call(
            Method::PUT,
            &["sessions", &id.to_string()],
            Some(&json!(update)),
        )
    }

    /// Gives a session's nodes back.
    pub fn retire_session(&self, id: i64) -> Result<Reply, ClientError> {
        let update = SessionUpdate {
            active: Some(false),
            expires_at: None,
        };
        self.update_session(id, &update)
    }

    /// The pools there are.
    pub fn list_pools(&self) -> Result<Reply, ClientError> {
        self.get(&["pools"])
    }

    /// One pool, with the count of its nodes.
    pub fn show_pool(&self, name: &str) -> Result<Reply, ClientError> {
        self.get(&["pools", name])
    }

    /// The nodes in use (administrators only).
    pub fn list_nodes(&self) -> Result<Reply, ClientError> {
        self.get(&["nodes"])
    }

    /// One node (administrators only).
    pub fn show_node(&self, id: i64) -> Result<Reply, ClientError> {
        self.get(&["nodes", &id.to_string()])
    }

    /// What happened to a node: up to `limit` events after the one numbered `after`, oldest first.
    pub fn list_node_events(&self, id: i64, after: i64, limit: u32) -> Result<Reply, ClientError> {
        self.events("nodes", id, after, limit)
    }

    /// The same of a session and its nodes.
    pub fn list_session_events(
        &self,
        id: i64,
        after: i64,
        limit: u32,
    ) -> Result<Reply, ClientError> {
        self.events("sessions", id, after, limit)
    }

    /// Registers a node (administrators only).
    pub fn create_node(&self, node: &NodeCreate) -> Result<Reply, ClientError> {
        self.call(Method::POST, &["nodes"], Some(&json!(node)))
    }

    /// The tenants (for all but administrators: oneself).
    pub fn list_tenants(&self) -> Result<Reply, ClientError> {
        self.get(&["tenants"])
    }

    /// One tenant.
    pub fn show_tenant(&self, id: i64) -> Result<Reply, ClientError> {
        self.get(&["tenants", &id.to_string()])
    }

    /// Creates a tenant (administrators only). `body` is `POST /tenants`' body.
    pub fn create_tenant(&self, body: &Value) -> Result<Reply, ClientError> {
        self.call(Method::POST, &["tenants"], Some(body))
    }

    /// Changes, retires or revives a tenant (administrators only). `body` is `PUT /tenants/{id}`'s body.
    pub fn update_tenant(&self, id: i64, body: &Value) -> Result<Reply, ClientError> {
        self.call(Method::PUT, &["tenants", &id.to_string()], Some(body))
    }

    fn get(&self, segments: &[&str]) -> Result<Reply, ClientError> {
        self.call(Method::GET, segments, None)
    }

    fn events(&self, owners: &str, id: i64, after: i64, limit: u32) -> Result<Reply, ClientError> {
        let url = self.base.join(&[owners, &id.to_string(), "events"]);
        let url = format!("{url}?after={after}&limit={limit}");
        self.send(Method::GET, url, None, None)
    }

    fn call(
        &self,
        method: Method,
        segments: &[&str],
        body: Option<&Value>,
    ) -> Result<Reply, ClientError> {
        self.send(method, self.base.join(segments), body, None)
    }

    fn send(
        &self,
        method: Method,
        url: String,
        body: Option<&Value>,
        key: Option<HeaderValue>,
    ) -> Result<Reply, ClientError> {
        let call = Call {
            url: &url,
            write: method != Method::GET,
            timeout: self.timeout,
            connect_timeout: CONNECT_TIMEOUT,
        };
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(id) = &self.request_id {
            request = request.header(X_REQUEST_ID, id);
        }
        if let Some(address) = &self.forwarded_for {
            request = request.header(X_FORWARDED_FOR, address);
        }
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let sent = match body {
            None => request.body(()).map(|request| self.run(request)),
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string())
                .map(|request| self.run(request)),
        };
        let mut response = sent
            .map_err(ureq::Error::Http)
            .and_then(|response| response)
            .map_err(|error| call.explain(error))?;
        let text = |name: HeaderName| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let (request_id, location) = (text(X_REQUEST_ID), text(header::LOCATION));
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(BODY_LIMIT)
            .read_to_vec()
            .map_err(|error| call.explain(error))?;
        Reply::read(url, status, request_id, location, &body)
    }

    fn run(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request);
        self.agent.run(request.timeout_global(self.timeout).build())
    }
}

fn basic(name: &str, key: &SecretString) -> Result<HeaderValue, ClientError> {
    let pair = format!("{name}:{}", key.expose_secret());
    let mut value =
        HeaderValue::from_str(&format!("Basic {}", BASE64.encode(pair))).map_err(|_| {
            ClientError::Header {
                what: "tenant's name",
            }
        })?;
    // Keeps it out of Debug.
    value.set_sensitive(true);
    Ok(value)
}
