//! Headers and bodies that are too large, too slow, or never end.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{assert_bounded, serve};
use crate::support::{Wire, eventually, together};

const POST: &str =
    "POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";

const MIB: usize = 1024 * 1024;

#[test]
fn a_body_over_the_limit_is_refused_and_its_client_sees_why() {
    let (lab, serve, before) = serve();
    let refused = (413, json!("The body is larger than 1 MiB"));
    // Announced, and sent all the same: simple clients read only when they have sent all.
    let mut wire = Wire::connect(lab.port()).unwrap();
    wire.send(format!("{POST}Content-Length: {}\r\n\r\n", 8 * MIB))
        .unwrap();
    wire.pour(&vec![b' '; MIB], 8);
    assert_eq!(wire.refusal(), refused);
    // Announced as more than there can be.
    let mut wire = Wire::connect(lab.port()).unwrap();
    wire.send(format!("{POST}Content-Length: {}\r\n\r\n", 10_u64.pow(15)))
        .unwrap();
    assert_eq!(wire.refusal(), refused);
    // Not announced: 8 MiB in chunks, and nobody says when it is over.
    let chunk = [
        format!("{MIB:x}\r\n").into_bytes(),
        vec![b' '; MIB],
        b"\r\n".to_vec(),
    ]
    .concat();
    let mut wire = Wire::connect(lab.port()).unwrap();
    wire.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n"))
        .unwrap();
    wire.pour(&chunk, 8);
    assert_eq!(wire.refusal(), refused);
    // One that goes on for ever is cut off.
    let mut wire = Wire::connect(lab.port()).unwrap();
    wire.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n"))
        .unwrap();
    let begun = Instant::now();
    while wire.send(&chunk).is_ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it is still read"
        );
    }
    assert_bounded(&serve, before);
}

#[test]
fn large_bodies_all_at_once_need_little_memory() {
    let (lab, serve, before) = serve();
    // Each is within the limit, and would take many times its size when read: 300,000 lists.
    let body = format!("{{\"nodes_specs\": [{}[]]}}", "[],".repeat(300_000));
    let replies = together(100, |_| {
        let mut wire = Wire::connect(lab.port()).unwrap();
        let head = format!(
            "{POST}Connection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        wire.send(head).unwrap();
        wire.send(&body).unwrap();
        wire.refusal()
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
    let drip = |mut wire: Wire| {
        // A byte each second, or so: the pauses between the looks grow that long.
        let mut sent = Instant::now();
        eventually(Duration::from_mins(1), "an end", || {
            if sent.elapsed() > Duration::from_millis(500) {
                sent = Instant::now();
                if wire.send("1").is_err() {
                    return Ok(());
                }
            }
            if wire.is_closed() {
                Ok(())
            } else {
                Err("it is still open".to_owned())
            }
        });
        begun.elapsed()
    };
    std::thread::scope(|scope| {
        let header = scope.spawn(|| {
            let mut wire = Wire::connect(lab.port()).unwrap();
            wire.send("GET /api/v1/pools HTTP/1.1\r\nX-Slow: ").unwrap();
            drip(wire)
        });
        let body = scope.spawn(|| {
            let mut wire = Wire::connect(lab.port()).unwrap();
            wire.send(format!("{POST}Content-Length: 1000\r\n\r\n"))
                .unwrap();
            drip(wire)
        });
        let silent = scope.spawn(|| {
            let mut wire = Wire::connect(lab.port()).unwrap();
            wire.send(format!("{POST}Content-Length: 1000\r\n\r\n{{"))
                .unwrap();
            wire.refusal()
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
        let mut wire = Wire::connect(lab.port()).unwrap();
        wire.send(request).ok();
        let (status, _) = wire.reply();
        assert!([414, 431].contains(&status), "{what}: {status}");
    }
    // One that never ends.
    let mut wire = Wire::connect(lab.port()).unwrap();
    wire.send(get).unwrap();
    wire.pour(line.as_bytes(), 10_000);
    assert_eq!(wire.reply().0, 431);
    assert_bounded(&serve, before);
}
