//! The client: a method per endpoint, all through one `send`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use duffy_api::{NodeCreate, NodesSpec, SessionCreate, SessionUpdate};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use ureq::{Agent, AsSendBody, Body, ProxyProtocol};

use crate::base_url::BaseUrl;
use crate::error::{Call, ClientError, Result};
use crate::reply::{Reply, X_REQUEST_ID};
use crate::{proxy, tls};

/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a reply. No list of sessions or nodes of a real site comes near this.
const BODY_LIMIT: u64 = 64 * 1024 * 1024;

/// Most idle connections that are kept: as many as a proxy of the old API has concurrent calls.
const IDLE_CONNECTIONS: usize = 64;

/// Sizes of a connection's buffers for replies and for requests, in bytes. The headers of a reply must fit. Longer bodies
/// take more reads.
const BUFFERS: (usize, usize) = (64 * 1024, 16 * 1024);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The API to call, and the tenant that calls it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base URL of the API, `http://duffy.example.org:8080/api/v1` say. It may end with a slash.
    pub url: String,
    /// Name of the tenant.
    pub name: String,
    /// Key of the tenant.
    pub key: SecretString,
    /// Longest time for a call. `None` means no limit, because a request for a session can take long: its nodes are prepared
    /// while the caller waits. Connecting has its own limit of 10 seconds.
    pub timeout: Option<Duration>,
    /// Name of this program in the server's log.
    pub user_agent: String,
    /// PEM file of the certificate authorities to trust instead of those that browsers trust. It is read if the API or the
    /// proxy is reached over https.
    pub ca_file: Option<PathBuf>,
}

/// A client of one API. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: BaseUrl,
    /// The headers of each request.
    headers: HeaderMap,
    timeout: Option<Duration>,
}

impl Client {
    /// Checks the settings. Connects to nothing yet.
    pub fn new(settings: &Settings) -> Result<Self> {
        let base = BaseUrl::parse(&settings.url)?;
        header_value("user agent", &settings.user_agent)?;
        let authorization = basic(&settings.name, &settings.key)?;
        let proxy = proxy::from_env(&base)?;
        // A file of all authorities has hundreds of kilobytes, and most servers are reached over HTTP.
        let is_encrypted = base.https
            || proxy
                .as_ref()
                .is_some_and(|proxy| proxy.protocol() == ProxyProtocol::Https);
        let ca_file = settings.ca_file.as_deref().filter(|_| is_encrypted);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // As in the original: a redirected write would arrive as a read, and a key must go only to the configured host.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .tls_config(tls::config(ca_file)?)
            .user_agent(&settings.user_agent)
            .accept("application/json")
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .input_buffer_size(BUFFERS.0)
            .output_buffer_size(BUFFERS.1)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .build();
        Ok(Self {
            agent: Agent::new_with_config(config),
            base,
            headers: HeaderMap::from_iter([(header::AUTHORIZATION, authorization)]),
            timeout: settings.timeout,
        })
    }

    /// Makes calls as another tenant.
    pub fn with_tenant(mut self, name: &str, key: &SecretString) -> Result<Self> {
        let authorization = basic(name, key)?;
        self.headers.insert(header::AUTHORIZATION, authorization);
        Ok(self)
    }

    /// Makes calls without credentials.
    #[must_use]
    pub fn without_tenant(mut self) -> Self {
        self.headers.remove(header::AUTHORIZATION);
        self
    }

    /// Sets the longest time for a call, as in [`Settings::timeout`].
    #[must_use]
    pub fn with_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends this `X-Request-Id`, so that both logs have the same id for a request.
    pub fn with_request_id(mut self, id: &str) -> Result<Self> {
        let id = header_value("request id", id)?;
        self.headers.insert(X_REQUEST_ID, id);
        Ok(self)
    }

    /// Sends `X-Forwarded-For` with the address of the client that this one makes calls for.
    pub fn with_forwarded_for(mut self, address: IpAddr) -> Result<Self> {
        let address = header_value("address", &address.to_string())?;
        self.headers.insert(X_FORWARDED_FOR, address);
        Ok(self)
    }

    /// Returns the base URL, without user name and trailing slash.
    pub fn url(&self) -> &str {
        &self.base.text
    }

    /// Checks whether the server can do its work. Fails with [`ClientError::Refused`] or [`ClientError::Unexpected`] if it
    /// answers and cannot.
    pub fn check_health(&self) -> Result<Reply> {
        self.send(Method::GET, self.base.health(), None, None)
    }

    /// Lists the tenant's active sessions, or those of all tenants for an administrator.
    pub fn list_sessions(&self) -> Result<Reply> {
        self.get(&["sessions"])
    }

    /// Shows one session, active or retired.
    pub fn show_session(&self, id: i64) -> Result<Reply> {
        self.get(&["sessions", &id.to_string()])
    }

    /// Requests a session: all of these nodes, or none.
    ///
    /// If a request is repeated with the same `key` ([`crate::new_key`]), the server gives the same answer again, and grants no
    /// second session.
    pub fn request_session(&self, specs: &[NodesSpec], key: Option<&str>) -> Result<Reply> {
        let body = SessionCreate {
            tenant_id: None,
            nodes_specs: specs.to_vec(),
        };
        let key = key.map(|key| header_value("idempotency key", key));
        let url = self.base.join(&["sessions"]);
        self.send(Method::POST, url, Some(&json!(body)), key.transpose()?)
    }

    /// Changes when a session ends, or retires it.
    pub fn update_session(&self, id: i64, update: &SessionUpdate) -> Result<Reply> {
        let body = json!(update);
        self.call(Method::PUT, &["sessions", &id.to_string()], Some(&body))
    }

    /// Retires a session, which gives its nodes back.
    pub fn retire_session(&self, id: i64) -> Result<Reply> {
        let update = SessionUpdate {
            active: Some(false),
            ..SessionUpdate::default()
        };
        self.update_session(id, &update)
    }

    /// Lists the pools.
    pub fn list_pools(&self) -> Result<Reply> {
        self.get(&["pools"])
    }

    /// Shows one pool, with the count of its nodes.
    pub fn show_pool(&self, name: &str) -> Result<Reply> {
        self.get(&["pools", name])
    }

    /// Lists the nodes in use. Only for administrators.
    pub fn list_nodes(&self) -> Result<Reply> {
        self.get(&["nodes"])
    }

    /// Shows one node. Only for administrators.
    pub fn show_node(&self, id: i64) -> Result<Reply> {
        self.get(&["nodes", &id.to_string()])
    }

    /// Lists up to `limit` events of a node after the event with the number `after`, the oldest first.
    pub fn list_node_events(&self, id: i64, after: i64, limit: u32) -> Result<Reply> {
        self.events("nodes", id, after, limit)
    }

    /// Lists events of a session and its nodes, as [`Client::list_node_events`] does.
    pub fn list_session_events(&self, id: i64, after: i64, limit: u32) -> Result<Reply> {
        self.events("sessions", id, after, limit)
    }

    /// Registers a node. Only for administrators.
    pub fn create_node(&self, node: &NodeCreate) -> Result<Reply> {
        self.call(Method::POST, &["nodes"], Some(&json!(node)))
    }

    /// Lists the tenants for an administrator. Other tenants see only themselves.
    pub fn list_tenants(&self) -> Result<Reply> {
        self.get(&["tenants"])
    }

    /// Shows one tenant.
    pub fn show_tenant(&self, id: i64) -> Result<Reply> {
        self.get(&["tenants", &id.to_string()])
    }

    /// Creates a tenant. Only for administrators. `body` is the body of `POST /tenants`.
    pub fn create_tenant(&self, body: &Value) -> Result<Reply> {
        self.call(Method::POST, &["tenants"], Some(body))
    }

    /// Changes, retires or reactivates a tenant. Only for administrators. `body` is the body of `PUT /tenants/{id}`.
    pub fn update_tenant(&self, id: i64, body: &Value) -> Result<Reply> {
        self.call(Method::PUT, &["tenants", &id.to_string()], Some(body))
    }

    fn get(&self, segments: &[&str]) -> Result<Reply> {
        self.call(Method::GET, segments, None)
    }

    fn events(&self, owners: &str, id: i64, after: i64, limit: u32) -> Result<Reply> {
        let url = self.base.join(&[owners, &id.to_string(), "events"]);
        let url = format!("{url}?after={after}&limit={limit}");
        self.send(Method::GET, url, None, None)
    }

    fn call(&self, method: Method, segments: &[&str], body: Option<&Value>) -> Result<Reply> {
        self.send(method, self.base.join(segments), body, None)
    }

    fn send(
        &self,
        method: Method,
        url: String,
        body: Option<&Value>,
        key: Option<HeaderValue>,
    ) -> Result<Reply> {
        let call = Call {
            url: &url,
            write: method != Method::GET,
            timeout: self.timeout,
            connect_timeout: CONNECT_TIMEOUT,
        };
        let response = self.exchange(method, &url, body, key);
        let response = response.map_err(|error| call.explain(error))?;
        Reply::read(url, &response)
    }

    fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        key: Option<HeaderValue>,
    ) -> std::result::Result<Response<Vec<u8>>, ureq::Error> {
        let mut request = Request::builder().method(method).uri(url).body(())?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.extend(key.map(|key| (IDEMPOTENCY_KEY, key)));
        let response = if let Some(body) = body {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
            self.run(request.map(|()| body.to_string()))?
        } else {
            self.run(request)?
        };
        let (head, mut body) = response.into_parts();
        let body = body.with_config().limit(BODY_LIMIT).read_to_vec()?;
        Ok(Response::from_parts(head, body))
    }

    fn run(
        &self,
        request: Request<impl AsSendBody>,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request);
        self.agent.run(request.timeout_global(self.timeout).build())
    }
}

fn header_value(what: &'static str, text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| ClientError::Header { what })
}

fn basic(name: &str, key: &SecretString) -> Result<HeaderValue> {
    let pair = BASE64.encode(format!("{name}:{}", key.expose_secret()));
    let mut value = header_value("tenant's name", &format!("Basic {pair}"))?;
    // Keeps it out of Debug.
    value.set_sensitive(true);
    Ok(value)
}
