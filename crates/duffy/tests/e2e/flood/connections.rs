//! Thousands of connections that are idle or nearly idle.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use super::{assert_bounded, memory, serve};
use crate::support::{Lab, RawConnection, eventually};

/// Far more than the default limit of 1024.
const CONNECTIONS: usize = 3000;

/// The time limit for the reply to a normal client. A silent client has twelve seconds.
const PROMPT: Duration = Duration::from_secs(5);

/// Opens connections that start with one of these texts, and keeps them open.
fn flood(port: u16, beginnings: &[&str]) -> Vec<RawConnection> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let connect = |number| {
        // The queue of the listener is limited, so a failed connection is retried.
        eventually(Duration::from_mins(1), "a connection", || {
            let mut connection = RawConnection::connect(port).map_err(|error| error.to_string())?;
            // The server may have closed the connection.
            connection.send(beginnings[number % beginnings.len()]).ok();
            Ok(connection)
        })
    };
    (0..CONNECTIONS).map(connect).collect()
}

#[test]
fn idle_connections_do_not_block_clients() {
    let (lab, serve, before) = serve();
    let tenant = lab.tenant();
    let mut idle = flood(
        lab.port(),
        &[
            "",
            "GET /api/v1/pools HTTP/1.1\r\nX-Half: ",
            "GET /api/v1/pools HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    );
    for _ in 0..10 {
        let asked = Instant::now();
        tenant.get("pools");
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    }
    assert_bounded(&serve, before);
    // The limit was reached: the server has closed the first connections and kept the last ones.
    assert!(idle[0].is_closed());
    assert!(!idle[CONNECTIONS - 5].is_closed());
    let open = idle
        .iter_mut()
        .filter_map(|connection| (!connection.is_closed()).then_some(()));
    assert!(open.count() <= 1024);
    drop(idle);
    eventually(Duration::from_mins(1), "all connections to close", || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", serve.pid()))
            .unwrap()
            .count();
        if files < 100 {
            Ok(())
        } else {
            Err(format!("{files} open files"))
        }
    });
    tenant.get("pools");
}

#[test]
fn idle_connections_do_not_block_clients_of_the_old_api() {
    let lab = Lab::on_postgres(
        &[],
        &json!({"metaclient": {"usermap": {}, "poolmap": [], "strict-permissions": false}}),
    );
    let port = crate::support::free_port();
    let _serve = lab.start(&["serve"]);
    let dest = format!("http://127.0.0.1:{}", lab.port());
    let number = port.to_string();
    let legacy =
        lab.site
            .duffy()
            .spawn(&["-l", "info", "serve-legacy", "-p", &number, "-D", &dest]);
    crate::support::wait_for_log(&legacy, "serving the old API");
    let before = memory(&legacy, "VmRSS:");
    let mut idle = flood(port, &["", "GET /Inventory HTTP/1.1\r\nX-Half: "]);
    for _ in 0..10 {
        let asked = Instant::now();
        let url = format!("http://127.0.0.1:{port}/Inventory");
        let reply = crate::support::http("GET", &url, None, None).unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    }
    assert!(idle[0].is_closed());
    assert_bounded(&legacy, before);
}
