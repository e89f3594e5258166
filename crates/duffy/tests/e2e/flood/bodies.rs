//! Headers and bodies that are too large, too slow, or endless.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{assert_bounded, serve};
use crate::support::{RawConnection, eventually, run_concurrently};

const POST: &str =
    "POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";

const MIB: usize = 1024 * 1024;

#[test]
fn a_client_with_too_large_a_body_gets_the_error() {
    let (lab, serve, before) = serve();
    let refused = (413, json!("The body is larger than 1 MiB"));
    // With a Content-Length. Simple clients send everything before they read.
    let mut connection = RawConnection::connect(lab.port()).unwrap();
    connection
        .send(format!("{POST}Content-Length: {}\r\n\r\n", 8 * MIB))
        .unwrap();
    connection.send_repeatedly(&vec![b' '; MIB], 8);
    assert_eq!(connection.refusal(), refused);
    // With an impossible Content-Length.
    let mut connection = RawConnection::connect(lab.port()).unwrap();
    connection
        .send(format!("{POST}Content-Length: {}\r\n\r\n", 10_u64.pow(15)))
        .unwrap();
    assert_eq!(connection.refusal(), refused);
    // Without a Content-Length: 8 MiB in chunks, without an end.
    let chunk = [
        format!("{MIB:x}\r\n").into_bytes(),
        vec![b' '; MIB],
        b"\r\n".to_vec(),
    ]
    .concat();
    let mut connection = RawConnection::connect(lab.port()).unwrap();
    connection
        .send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n"))
        .unwrap();
    connection.send_repeatedly(&chunk, 8);
    assert_eq!(connection.refusal(), refused);
    // An endless body is cut off.
    let mut connection = RawConnection::connect(lab.port()).unwrap();
    connection
        .send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n"))
        .unwrap();
    let begun = Instant::now();
    while connection.send(&chunk).is_ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it is still read"
        );
    }
    assert_bounded(&serve, before);
}

#[test]
fn concurrent_large_bodies_need_little_memory() {
    let (lab, serve, before) = serve();
    // Each body is within the limit, but needs many times its size when parsed: 300,000 lists.
    let body = format!("{{\"nodes_specs\": [{}[]]}}", "[],".repeat(300_000));
    let replies = run_concurrently(100, |_| {
        let mut connection = RawConnection::connect(lab.port()).unwrap();
        let head = format!(
            "{POST}Connection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.send(head).unwrap();
        connection.send(&body).unwrap();
        connection.refusal()
    });
    for reply in replies {
        assert_eq!(reply, (401, json!("Not authenticated")));
    }
    assert_bounded(&serve, before);
}

#[test]
fn slow_headers_and_slow_bodies_are_cut_off() {
    let (lab, _serve, _) = serve();
    let begun = Instant::now();
    let drip = |mut connection: RawConnection| {
        // About one byte per second, because the interval of `eventually` grows.
        let mut sent = Instant::now();
        eventually(Duration::from_mins(1), "an end", || {
            if sent.elapsed() > Duration::from_millis(500) {
                sent = Instant::now();
                if connection.send("1").is_err() {
                    return Ok(());
                }
            }
            if connection.is_closed() {
                Ok(())
            } else {
                Err("it is still open".to_owned())
            }
        });
        begun.elapsed()
    };
    std::thread::scope(|scope| {
        let header = scope.spawn(|| {
            let mut connection = RawConnection::connect(lab.port()).unwrap();
            connection
                .send("GET /api/v1/pools HTTP/1.1\r\nX-Slow: ")
                .unwrap();
            drip(connection)
        });
        let body = scope.spawn(|| {
            let mut connection = RawConnection::connect(lab.port()).unwrap();
            connection
                .send(format!("{POST}Content-Length: 1000\r\n\r\n"))
                .unwrap();
            drip(connection)
        });
        let silent = scope.spawn(|| {
            let mut connection = RawConnection::connect(lab.port()).unwrap();
            connection
                .send(format!("{POST}Content-Length: 1000\r\n\r\n{{"))
                .unwrap();
            connection.refusal()
        });
        assert!(header.join().unwrap() < Duration::from_secs(20));
        assert!(body.join().unwrap() < Duration::from_secs(45));
        let late = json!("The body was not received in time");
        assert_eq!(silent.join().unwrap(), (408, late));
    });
}

#[test]
fn headers_beyond_the_limit_are_refused() {
    let (lab, serve, before) = serve();
    let line = format!("X-Large: {}\r\n", "x".repeat(8000));
    let basic = format!("Authorization: Basic {}\r\n", "QUFB".repeat(MIB / 4));
    let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n", "x".repeat(MIB));
    let get = "GET /api/v1/pools HTTP/1.1\r\nHost: x\r\n";
    for (what, request) in [
        ("large headers", format!("{get}{}\r\n", line.repeat(1000))),
        (
            "many headers",
            format!("{get}{}\r\n", "X-Many: 1\r\n".repeat(1000)),
        ),
        ("large credentials", format!("{get}{basic}\r\n")),
        ("a long path", format!("{path}\r\n")),
    ] {
        let mut connection = RawConnection::connect(lab.port()).unwrap();
        connection.send(request).ok();
        let (status, _) = connection.reply();
        assert!([414, 431].contains(&status), "{what}: {status}");
    }
    // An endless header.
    let mut connection = RawConnection::connect(lab.port()).unwrap();
    connection.send(get).unwrap();
    connection.send_repeatedly(line.as_bytes(), 10_000);
    assert_eq!(connection.reply().0, 431);
    assert_bounded(&serve, before);
}
