//! `duffy client` against a peer that gives the original's recorded replies.

use std::fmt::Write;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::peer::Peer;
use crate::{run, run_with};

/// Arguments, status and body by name: the original's replies, with plausible numbers, times
/// and names in them.
const REPLIES: &str = include_str!("data/replies.json");
const KEY: &str = "a8b9899d-b128-59a1-aa86-754920b7f5ed";

/// Creates a directory with a configuration for this address.
fn configured(address: impl std::fmt::Display) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "client:\n  url: http://{address}/api/v1\n  auth:\n    name: tenant\n    key: {KEY}\n"
    );
    fs::write(dir.path().join("c.yaml"), config).unwrap();
    dir
}

fn client(dir: &Path, args: &[&str]) -> String {
    run(dir, &[&["-c", "c.yaml", "client"], args].concat())
}

#[test]
fn each_command_in_each_format() {
    let replies: Value = serde_json::from_str(REPLIES).unwrap();
    for (name, reply) in replies.as_object().unwrap() {
        let status = u16::try_from(reply["status"].as_u64().unwrap()).unwrap();
        let peer = Peer::json(status, &reply["body"].to_string());
        let dir = configured(peer.address);
        let args: Vec<&str> = reply["args"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut all = String::new();
        for format in ["json", "yaml", "flat"] {
            let shown = client(
                dir.path(),
                &[&["--format", format], args.as_slice()].concat(),
            );
            write!(all, "===== {format}\n{shown}").unwrap();
            let code = i32::from(status >= 300);
            assert!(
                shown.starts_with(&format!("exit: {code}\n")),
                "{name}: {shown}"
            );
            assert!(shown.ends_with("----- stderr\n"), "{name}: {shown}");
        }
        let requests = peer.finish();
        assert_eq!(requests.len(), 3, "{name}");
        insta::assert_snapshot!(
            format!("client-{name}"),
            format!("{all}===== asked\n{}", requests[0])
        );
    }
}

#[test]
fn arguments_go_before_environment_before_configuration() {
    let peer = Peer::json(200, "{}");
    let dir = configured("127.0.0.1:1");
    let url = format!("http://{}/other/", peer.address);
    let args = ["-c", "c.yaml", "client", "--url", &url, "--auth-name", "me"];
    run(dir.path(), &[&args[..], &["list-pools"]].concat());
    run_with(
        dir.path(),
        &[&args[..], &["list-pools"]].concat(),
        &[("DUFFY_AUTH_KEY", "env")],
    );
    let with_key = [&args[..], &["--auth-key", "arg", "list-pools"]].concat();
    run_with(dir.path(), &with_key, &[("DUFFY_AUTH_KEY", "env")]);
    // me:KEY, me:env, me:arg
    let expected = [
        "bWU6YThiOTg5OWQtYjEyOC01OWExLWFhODYtNzU0OTIwYjdmNWVk",
        "bWU6ZW52",
        "bWU6YXJn",
    ];
    let expected = expected.map(|pair| format!("GET /other/pools HTTP/1.1\nBasic {pair}\n"));
    assert_eq!(peer.finish(), expected);
}

#[test]
fn what_is_missing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.yaml"), "").unwrap();
    let mut all = String::new();
    for args in [
        &["list-pools"][..],
        &["--url", "http://h", "list-pools"],
        &["--url", "http://h", "--auth-name", "n", "list-pools"],
        &["--url", "", "list-pools"],
        &[
            "--url",
            "h:8080",
            "--auth-name",
            "n",
            "--auth-key",
            "k",
            "list-pools",
        ],
    ] {
        all.push_str(&client(dir.path(), args));
    }
    insta::assert_snapshot!("client-missing-settings", all);
}

#[test]
fn replies_that_are_none() {
    let page = "<html><head><title>502 Bad Gateway</title></head>\n<body>nginx</body></html>";
    let html = format!(
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    );
    let mut all = String::new();
    for reply in [
        html.as_str(),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 500 Oops\r\nContent-Length: 13\r\n\r\n{\"a\": \"none\"}",
        "HTTP/1.1 307 Elsewhere\r\nLocation: http://h/\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "",
    ] {
        let peer = Peer::start(reply);
        let dir = configured(peer.address);
        let shown = client(dir.path(), &["--format", "flat", "list-pools"]);
        all.push_str(&shown.replace(&peer.address.to_string(), "HOST"));
        peer.finish();
    }
    // No program listens there any more.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let shown = client(configured(address).path(), &["retire-session", "1"]);
    all.push_str(&shown.replace(&address.to_string(), "HOST"));
    assert!(!all.contains(KEY));
    insta::assert_snapshot!("client-no-replies", all);
}

#[test]
fn a_reply_without_its_members_is_no_flat_one() {
    let peer = Peer::json(200, r#"{"action": "get", "news": 1}"#);
    let dir = configured(peer.address);
    let flat = client(dir.path(), &["--format", "flat", "list-pools"]);
    assert!(
        flat.starts_with("exit: 1\n----- stdout\n----- stderr\nerror: can't print the reply flat"),
        "{flat}"
    );
    let json = client(dir.path(), &["list-pools"]);
    assert!(json.contains("    \"news\": 1\n"), "{json}");
    peer.finish();
}

#[test]
fn logging_goes_to_stderr_by_option_or_variable() {
    let peer = Peer::json(200, "{}");
    let dir = configured(peer.address);
    let args = ["-c", "c.yaml", "client", "list-pools"];
    let stderr = |shown: &str| shown.split_once("----- stderr\n").unwrap().1.to_owned();
    assert_eq!(stderr(&run(dir.path(), &args)), "");
    let bad = run_with(dir.path(), &args, &[("RUST_LOG", "a=b=c")]);
    assert!(stderr(&bad).starts_with("warning: RUST_LOG"), "{bad}");
    assert!(bad.starts_with("exit: 0\n"), "{bad}");
    peer.finish();
}
