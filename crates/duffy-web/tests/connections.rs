//! The server with clients that behave badly, over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use duffy_web::{Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long a step may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(20);

const REQUEST: &[u8] = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n";
const SLOW_REQUEST: &[u8] = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Notified when the slow request runs.
    started: Arc<Notify>,
    /// Lets the slow request end.
    finish: Arc<Notify>,
    /// Notified when the slow request is over, answered or not.
    over: Arc<Notify>,
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn start(limits: Limits) -> Server {
    let started = Arc::new(Notify::new());
    let finish = Arc::new(Notify::new());
    let over = Arc::new(Notify::new());
    let slow = {
        let (started, finish) = (Arc::clone(&started), Arc::clone(&finish));
        let over = Arc::clone(&over);
        move || async move {
            let _over = NotifyOnDrop(over);
            started.notify_one();
            finish.notified().await;
            "slow"
        }
    };
    let body = {
        let (started, over) = (Arc::clone(&started), Arc::clone(&over));
        move |request: Request| async move {
            let _over = NotifyOnDrop(over);
            started.notify_one();
            axum::body::to_bytes(request.into_body(), 1000).await.ok();
        }
    };
    let router = Router::new()
        .route("/quick", get(|| async { "quick" }))
        .route("/large", get(|| async { vec![b'x'; 64 << 20] }))
        .route("/slow", get(slow))
        .route("/body", post(body));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router, limits, stop.clone()));
    Server {
        address,
        stop,
        task,
        started,
        finish,
        over,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ended(self) {
        timeout(DEADLINE, self.task)
            .await
            .expect("the server ends")
            .unwrap();
    }
}

/// Reads until the text is received.
async fn expect(stream: &mut TcpStream, text: &str) {
    let mut found = Vec::new();
    timeout(DEADLINE, async {
        while !String::from_utf8_lossy(&found).contains(text) {
            let mut part = [0; 1024];
            let read = stream.read(&mut part).await.unwrap();
            assert_ne!(
                read,
                0,
                "closed after {:?}",
                String::from_utf8_lossy(&found)
            );
            found.extend_from_slice(&part[..read]);
        }
    })
    .await
    .expect("the reply comes");
}

/// Reads until the server closes the connection.
async fn expect_close(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let closed = timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    // A reset closes the connection too.
    let _ = closed.expect("the server closes the connection");
}

fn short() -> Limits {
    Limits {
        header_read: Duration::from_millis(700),
        idle: Duration::from_millis(900),
        connections: 2,
        shutdown: Duration::from_millis(300),
        ..Limits::default()
    }
}

#[tokio::test]
async fn half_a_header_and_silence_are_cut_off() {
    let server = start(short()).await;
    for begin in [
        "",
        "G",
        "GET / HTTP/1.1\r\nHos",
        "PRI * HTTP/2.0\r\n\r\n",
        "PRI * H",
    ] {
        let begun = Instant::now();
        let mut stream = server.connect().await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        expect_close(&mut stream).await;
        assert!(begun.elapsed() >= Duration::from_millis(600), "{begin:?}");
    }
    server.stop.cancel();
    server.ended().await;
}

#[tokio::test]
async fn a_connection_serves_several_requests_and_is_closed_when_idle() {
    let server = start(Limits {
        header_read: Duration::from_secs(2),
        ..short()
    })
    .await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(REQUEST).await.unwrap();
        expect(&mut stream, "quick").await;
    }
    expect_close(&mut stream).await;
    server.stop.cancel();
    server.ended().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_reply_is_cut_off() {
    let server = start(Limits {
        connections: 1,
        ..short()
    })
    .await;
    let mut lazy = server.connect().await;
    let request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
    lazy.write_all(request).await.unwrap();
    // A new connection is served although the reply is not read.
    let mut next = server.connect().await;
    next.write_all(REQUEST).await.unwrap();
    expect(&mut next, "quick").await;
    server.stop.cancel();
    server.ended().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let server = start(Limits {
        header_read: DEADLINE,
        ..short()
    })
    .await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for stream in [&mut first, &mut second] {
        stream.write_all(SLOW_REQUEST).await.unwrap();
        timeout(DEADLINE, server.started.notified()).await.unwrap();
    }
    let mut third = server.connect().await;
    third.write_all(REQUEST).await.unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_millis(300), third.read(&mut byte)).await;
    assert!(early.is_err(), "served beyond the limit");
    drop(first);
    expect(&mut third, "quick").await;
    server.finish.notify_one();
    expect(&mut second, "slow").await;
    server.stop.cancel();
    server.ended().await;
}

#[tokio::test]
async fn the_connection_that_is_idle_for_longest_is_closed_for_a_new_one() {
    let server = start(Limits {
        header_read: DEADLINE,
        idle: DEADLINE,
        connections: 3,
        ..short()
    })
    .await;
    let mut busy = server.connect().await;
    busy.write_all(SLOW_REQUEST).await.unwrap();
    timeout(DEADLINE, server.started.notified()).await.unwrap();
    let mut silent = server.connect().await;
    silent
        .write_all(b"GET /quick HTTP/1.1\r\nHos")
        .await
        .unwrap();
    let mut used = server.connect().await;
    used.write_all(REQUEST).await.unwrap();
    expect(&mut used, "quick").await;
    let mut next = server.connect().await;
    next.write_all(REQUEST).await.unwrap();
    expect(&mut next, "quick").await;
    expect_close(&mut silent).await;
    let mut another = server.connect().await;
    another.write_all(REQUEST).await.unwrap();
    expect(&mut another, "quick").await;
    expect_close(&mut used).await;
    server.finish.notify_one();
    expect(&mut busy, "slow").await;
    server.stop.cancel();
    server.ended().await;
}

#[tokio::test]
async fn a_connection_that_waits_for_a_body_is_closed_for_a_new_one() {
    let server = start(Limits {
        header_read: DEADLINE,
        idle: DEADLINE,
        connections: 1,
        ..short()
    })
    .await;
    let mut slow = server.connect().await;
    let begin = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc";
    slow.write_all(begin).await.unwrap();
    timeout(DEADLINE, server.started.notified()).await.unwrap();
    let mut next = server.connect().await;
    next.write_all(REQUEST).await.unwrap();
    expect(&mut next, "quick").await;
    expect_close(&mut slow).await;
    timeout(DEADLINE, server.over.notified()).await.unwrap();
    server.stop.cancel();
    server.ended().await;
}

#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_its_body_gets_the_reply() {
    let server = start(Limits::default()).await;
    let mut stream = server.connect().await;
    let begin = b"POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n";
    stream.write_all(begin).await.unwrap();
    // It reads only after it sent everything, as simple clients do.
    stream.write_all(&vec![b'x'; 4_000_000]).await.unwrap();
    let mut reply = String::new();
    let read = timeout(DEADLINE, stream.read_to_string(&mut reply)).await;
    read.unwrap().unwrap();
    assert!(reply.starts_with("HTTP/1.1 405"), "{reply}");
    server.stop.cancel();
    server.ended().await;
}

#[tokio::test]
async fn stopping_lets_a_running_request_finish() {
    let server = start(Limits {
        shutdown: DEADLINE,
        ..Limits::default()
    })
    .await;
    let mut idle = server.connect().await;
    idle.write_all(REQUEST).await.unwrap();
    expect(&mut idle, "quick").await;
    let mut busy = server.connect().await;
    busy.write_all(SLOW_REQUEST).await.unwrap();
    timeout(DEADLINE, server.started.notified()).await.unwrap();
    server.stop.cancel();
    // The server closes the idle connection at once, and accepts no new ones.
    expect_close(&mut idle).await;
    timeout(DEADLINE, async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the port is closed");
    assert!(!server.task.is_finished());
    server.finish.notify_one();
    expect(&mut busy, "slow").await;
    expect_close(&mut busy).await;
    server.ended().await;
}

#[tokio::test]
async fn stopping_ends_within_the_deadline_whatever_runs() {
    let server = start(short()).await;
    let mut busy = server.connect().await;
    busy.write_all(SLOW_REQUEST).await.unwrap();
    timeout(DEADLINE, server.started.notified()).await.unwrap();
    let begun = Instant::now();
    server.stop.cancel();
    expect_close(&mut busy).await;
    server.ended().await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(250), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_request_ends_when_its_client_hangs_up() {
    let server = start(Limits::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(SLOW_REQUEST).await.unwrap();
    timeout(DEADLINE, server.started.notified()).await.unwrap();
    drop(stream);
    timeout(DEADLINE, server.over.notified())
        .await
        .expect("the handler is dropped");
    server.stop.cancel();
    server.ended().await;
}

#[tokio::test]
async fn the_preface_of_http2_is_answered() {
    let server = start(Limits::default()).await;
    let mut stream = server.connect().await;
    // The preface and an empty SETTINGS frame. The answer begins with the server's SETTINGS.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut frame = [0; 9];
    timeout(DEADLINE, stream.read_exact(&mut frame))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frame[3], 4, "{frame:?}");
    drop(stream);
    server.stop.cancel();
    server.ended().await;
}
