//! Clients that request large replies and do not read them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use super::memory;
use crate::support::{Lab, Pool, Program, free_port, http, wait_for_log};

/// The maximum resident memory in KiB.
const MAX_MEMORY: u64 = 100_000;

/// The number of connections of an attack over HTTP/1.
const HTTP1_CONNECTIONS: usize = 100;

/// The number of requests per connection, sent without reading the replies.
const PIPELINED: usize = 8;

/// The number of connections of an attack over HTTP/2, with the maximum number of streams.
const HTTP2_CONNECTIONS: usize = 30;
const STREAMS: usize = 32;

/// The time limit for replies to other clients. A debug build on a busy host is slow with 10,000 nodes.
const PROMPT: Duration = Duration::from_secs(20);

/// The time limit until all requests of an attack are answered, refused or cut off.
const ATTACK: Duration = Duration::from_mins(1);

/// Opens a connection with a small receive buffer, so that most of a reply stays in the server.
async fn connect(port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = ([127, 0, 0, 1], port).into();
    socket.connect(address).await.unwrap()
}

/// Sends requests over HTTP/1 and waits until each connection has received the beginning of its first reply.
async fn ask_by_http1(port: u16, path: &'static str) -> Vec<TcpStream> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(PIPELINED);
    let ask = async || {
        let mut stream = connect(port).await;
        // A reply that is cut off counts, too.
        stream.write_all(request.as_bytes()).await.ok();
        stream.read_exact(&mut [0; 1]).await.ok();
        stream
    };
    join_all((0..HTTP1_CONNECTIONS).map(|_| ask())).await
}

/// Sends requests over HTTP/2 with a window of zero, and waits for the headers of the replies.
async fn ask_by_http2(
    port: u16,
    path: &'static str,
) -> Vec<(SendRequest<Bytes>, Vec<h2::RecvStream>)> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let ask = async || {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(0);
        let (sender, connection) = builder.handshake(connect(port).await).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let mut replies = Vec::new();
        for _ in 0..STREAMS {
            let request = http::Request::get(&url).body(()).unwrap();
            // The connection may be closed by now.
            if let Ok((reply, _)) = sender.send_request(request, true) {
                replies.push(reply);
            }
        }
        let replies = join_all(replies).await.into_iter();
        let bodies = replies.filter_map(|reply| Some(reply.ok()?.into_body()));
        (sender, bodies.collect())
    };
    join_all((0..HTTP2_CONNECTIONS).map(|_| ask())).await
}

/// Runs an attack while other clients request these paths. It checks the server's memory from the beginning, so that a server without
/// a limit does not use all memory of the host.
fn attack<T: Send + 'static>(
    runtime: &Runtime,
    server: &Program,
    what: impl Future<Output = T> + Send + 'static,
    honest: &[String],
) {
    let begun = Instant::now();
    let attack = runtime.spawn(what);
    let over = |done: bool| {
        let most = memory(server, "VmHWM:");
        assert!(most < MAX_MEMORY, "it used {most} KiB");
        assert!(begun.elapsed() < ATTACK, "requests are not answered");
        done
    };
    let ask = || {
        for url in honest {
            let asked = Instant::now();
            let reply = http("GET", url, None, None).unwrap();
            assert_eq!(reply.status, 200, "{url}: {}", reply.text);
            assert!(asked.elapsed() < PROMPT, "{url}: {:?}", asked.elapsed());
        }
    };
    while !over(attack.is_finished()) {
        ask();
    }
    let kept = runtime.block_on(attack).unwrap();
    ask();
    over(true);
    drop(kept);
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn unread_replies_need_little_memory() {
    let pool = Pool::simulated("pool", 1, &serde_json::json!({}));
    let lab = Lab::on_postgres(&[pool], &serde_json::json!({}));
    lab.sql(
        "INSERT INTO nodes (hostname, ipaddr, pool, state, reusable, created_at, data) \
         SELECT 'node' || i || '.example.org', '10.0.' || i / 256 || '.' || i % 256, 'pool', 'ready', false, now(), \
         CAST('{\"provision\": {\"hostname\": \"node' || i || '.example.org\", \"ipaddr\": \"10.0.0.1\", \
         \"flavor\": \"medium\", \"image\": \"' || repeat('x', 64) || '\"}}' AS json) \
         FROM generate_series(1, 10000) AS i",
    );
    let serve = lab.start(&["serve"]);
    let port = lab.port();
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let runtime = runtime();
    for (path, honest) in [
        ("/docs/swagger-ui-bundle.js", ["/docs", "/api/v1/pools"]),
        ("/redoc/redoc.standalone.js", ["/docs", "/api/v1/pools"]),
        ("/api/v1/nodes", ["/api/v1/nodes", "/api/v1/pools"]),
    ] {
        let honest = honest.map(url);
        attack(&runtime, &serve, ask_by_http1(port, path), &honest);
        attack(&runtime, &serve, ask_by_http2(port, path), &honest);
    }
}

#[test]
fn unread_pages_of_the_old_api_need_little_memory() {
    let settings = serde_json::json!({"metaclient": {"usermap": {}, "poolmap": []}});
    let lab = Lab::on_sqlite(&[], &settings);
    let port = free_port();
    let number = port.to_string();
    let duffy = lab.site.duffy();
    let legacy = duffy.spawn(&["-l", "info", "serve-legacy", "-p", &number]);
    wait_for_log(&legacy, "serving the old API");
    let honest = [format!("http://127.0.0.1:{port}/docs")];
    let runtime = runtime();
    for path in ["/docs/swagger-ui-bundle.js", "/openapi.json"] {
        attack(&runtime, &legacy, ask_by_http1(port, path), &honest);
    }
}
