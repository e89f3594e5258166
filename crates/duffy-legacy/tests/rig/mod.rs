//! A web API that gives the answers of a test, and a proxy to it, both on real connections.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::serve::ListenerExt;
use duffy_legacy::{Legacy, Limits, SettingsError, Times};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The key of the tenant `tenant`.
pub const KEY: &str = "a8b9899d-b128-59a1-aa86-754920b7f5ed";

/// The header that the web API gets for it.
pub const AUTHORIZATION: &str =
    "Basic dGVuYW50OmE4Yjk4OTlkLWIxMjgtNTlhMS1hYTg2LTc1NDkyMGI3ZjVlZA==";

/// How long a condition may take that should be met at once.
const SOON: Duration = Duration::from_secs(20);

/// Answers a request.
pub type Answer = Arc<dyn Fn(&Asked) -> Response + Send + Sync>;

/// A request to the web API.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    pub body: String,
    pub authorization: Option<String>,
    pub request_id: Option<String>,
    pub forwarded_for: Option<String>,
}

/// The web API.
pub struct Web {
    pub url: String,
    asked: watch::Receiver<Vec<Asked>>,
    connections: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

type Reply = Pin<Box<dyn Future<Output = Response> + Send>>;

impl Web {
    pub async fn start(answer: Answer) -> Self {
        Self::start_async(move |asked| std::future::ready(answer(&asked))).await
    }

    /// `answer` gets the number of earlier requests.
    pub async fn start_numbered(
        answer: impl Fn(usize, &Asked) -> Response + Send + Sync + 'static,
    ) -> Self {
        let number = AtomicUsize::new(0);
        Self::start(Arc::new(move |asked| {
            answer(number.fetch_add(1, Ordering::SeqCst), asked)
        }))
        .await
    }

    pub async fn start_async<F>(answer: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, asked) = watch::channel(Vec::new());
        let (sender, answer) = (Arc::new(sender), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request| -> Reply {
            let (sender, answer) = (Arc::clone(&sender), Arc::clone(&answer));
            Box::pin(async move {
                let asked = read(request).await;
                sender.send_modify(|all| all.push(asked.clone()));
                answer(asked).await
            })
        });
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let listener = listener.tap_io(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            asked,
            connections,
            server,
        }
    }

    /// Returns all requests until now.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    /// Waits for this number of requests, and returns all.
    pub async fn wait_for_asked(&self, number: usize) -> Vec<Asked> {
        let mut asked = self.asked.clone();
        let wait = asked.wait_for(|all| all.len() >= number);
        let seen = tokio::time::timeout(SOON, wait).await;
        seen.unwrap_or_else(|_| panic!("{:?}", self.asked()))
            .unwrap()
            .clone()
    }

    /// Returns how many connections there were.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn read(request: Request) -> Asked {
    let (head, body): (_, Body) = request.into_parts();
    let header = |name: &str| {
        let value = head.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let (authorization, request_id) = (header("authorization"), header("x-request-id"));
    let forwarded_for = header("x-forwarded-for");
    let line = format!("{} {}", head.method, head.uri.path());
    let body = axum::body::to_bytes(body, 1_000_000).await.unwrap();
    Asked {
        line,
        body: String::from_utf8(body.to_vec()).unwrap(),
        authorization,
        request_id,
        forwarded_for,
    }
}

/// A reply of the old API.
#[derive(Debug)]
pub struct OldReply {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
    /// Null if it is not JSON.
    pub json: Value,
}

/// The old API.
pub struct Old {
    pub address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// A proxy with settings for all tests.
pub fn legacy(dest: &str, times: Times) -> Result<Arc<Legacy>, SettingsError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("duffy.yaml");
    let config = json!({"metaclient": {
        "usermap": {KEY: "tenant"},
        "trusted-proxies": ["127.0.0.0/8"],
        "poolmap": [
            {"ver": "broken", "pool": "{{ ver.a.b }}"},
            {"ver": "^[89]-stream$",
             "pool": "virtual-{{ ver | replace('-', '') }}-{{ arch }}-{{ flavor | default('medium') }}"},
        ],
        "mangle_hostname": "{{ hostname | replace('.lab.test', '') }}",
    }});
    std::fs::write(&path, config.to_string()).unwrap();
    let config = duffy_config::load_files(&[path]).unwrap();
    Legacy::new(config.metaclient.unwrap(), dest, times)
}

impl Old {
    pub async fn start(dest: &str) -> Self {
        Self::start_with(dest, Times::default(), Limits::default()).await
    }

    pub async fn start_with(dest: &str, times: Times, limits: Limits) -> Self {
        let listener = duffy_legacy::bind("127.0.0.1", 0).await.unwrap();
        let stop = CancellationToken::new();
        let address = listener.local_addr().unwrap();
        let legacy = legacy(dest, times).unwrap();
        let server = tokio::spawn(duffy_legacy::serve(listener, legacy, limits, stop.clone()));
        Self {
            address,
            stop,
            server,
        }
    }

    pub async fn get(&self, path: &str) -> OldReply {
        self.ask("GET", path).await
    }

    pub async fn ask(&self, method: &str, path: &str) -> OldReply {
        let mut connection = self.connect().await;
        let head = format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = connection.read_to_end(&mut bytes);
        tokio::time::timeout(SOON, read).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        OldReply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: format!("{head}\r\n"),
            body: body.to_owned(),
            json: serde_json::from_str(body).unwrap_or_default(),
        }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Begins to stop the proxy.
    pub fn order_stop(&self) {
        self.stop.cancel();
    }

    /// Stops the proxy, and waits until it ends.
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.server)
            .await
            .unwrap()
            .unwrap();
    }
}
