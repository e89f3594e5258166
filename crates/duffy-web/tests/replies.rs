//! Replies that their clients do not read, over real connections.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use duffy_web::{Limits, serve};
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use hyper::Request;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a step may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(20);

const LARGE: usize = 1024 * 1024;

struct Server {
    address: SocketAddr,
    /// Lets requests for `/slow` end.
    finish: Arc<Notify>,
    _stop: DropGuard,
}

async fn start(limits: Limits) -> Server {
    let finish = Arc::new(Notify::new());
    let finished = Arc::clone(&finish);
    let slow = async move || {
        finished.notified().await;
        "slow"
    };
    let router = Router::new()
        .route("/slow", get(slow))
        .route("/large", get(async || vec![b'x'; LARGE]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, router, limits, stop.clone()));
    Server {
        address,
        finish,
        _stop: stop.drop_guard(),
    }
}

/// A client with a flow-control window of zero: the server cannot send any byte of a body.
async fn connect(server: &Server) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn ask(client: &mut SendRequest<Bytes>, path: &str) -> ResponseFuture {
    let request = Request::get(format!("http://127.0.0.1{path}"));
    let request = request.body(()).unwrap();
    client.send_request(request, true).unwrap().0
}

async fn answered(reply: ResponseFuture) -> RecvStream {
    let reply = timeout(DEADLINE, reply).await.expect("an answer").unwrap();
    assert_eq!(reply.status(), 200);
    reply.into_body()
}

/// Waits until the server resets a stream, and not its connection.
async fn expect_reset(body: &mut RecvStream) {
    let end = timeout(DEADLINE, body.data()).await.expect("an end");
    let error = end.expect("an error").unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error:?}");
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_and_others_go_on() {
    let server = start(Limits {
        idle: Duration::from_millis(900),
        ..Limits::default()
    })
    .await;
    let mut client = connect(&server).await;
    let slow = ask(&mut client, "/slow");
    let large = ask(&mut client, "/large");
    expect_reset(&mut answered(large).await).await;
    server.finish.notify_one();
    drop(answered(slow).await);
}

#[tokio::test]
async fn the_reply_that_stalled_for_longest_is_cut_off_for_new_ones() {
    let server = start(Limits::default()).await;
    let mut client = connect(&server).await;
    let mut first = answered(ask(&mut client, "/large")).await;
    let mut others = Vec::new();
    // More than the budget for large replies.
    for _ in 0..20 {
        others.push(answered(ask(&mut client, "/large")).await);
    }
    expect_reset(&mut first).await;
}

#[tokio::test]
async fn a_client_that_reads_gets_the_whole_reply() {
    let server = start(Limits::default()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = sender.ready().await.unwrap();
    let mut body = answered(ask(&mut client, "/large")).await;
    let mut length = 0;
    while let Some(data) = timeout(DEADLINE, body.data()).await.expect("more") {
        let data = data.unwrap();
        length += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(length, LARGE);
}
