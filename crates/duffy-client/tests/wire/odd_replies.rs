//! Invalid replies. Each becomes one line that says where it came from and what to do.

use std::net::TcpListener;
use std::time::Duration;

use crate::peer::{Answer, Peer, reply};
use duffy_client::{Client, ClientError, Settings};
use secrecy::SecretString;

fn settings(url: String) -> Settings {
    Settings {
        url,
        name: "tenant".to_owned(),
        key: SecretString::from("secret-key"),
        timeout: None,
        user_agent: "duffy-test/1".to_owned(),
        ca_file: None,
    }
}

/// Lists the pools and returns the error, which is one line and does not contain the key.
fn error(answer: Answer) -> (ClientError, String) {
    let peer = Peer::start(vec![answer]);
    let url = peer.url();
    let error = Client::new(&settings(url.clone()))
        .unwrap()
        .list_pools()
        .unwrap_err();
    let shown = error.to_string();
    assert!(
        !shown.contains('\n') && !shown.contains("secret-key"),
        "{shown}"
    );
    assert!(!format!("{error:?}").contains("secret-key"));
    assert_eq!(peer.finish().len(), 1);
    (error, shown.replace(&url, "URL"))
}

#[test]
fn refusals_have_the_reason() {
    let (error, shown) = self::error(reply(
        "404 Not Found",
        "X-Request-Id: 17\r\n",
        r#"{"detail":"Not Found","more":1}"#,
    ));
    assert_eq!(shown, "refused (status 404): Not Found");
    let ClientError::Refused(refusal) = error else {
        panic!("{error:?}")
    };
    assert_eq!(refusal.request_id.as_deref(), Some("17"));
    assert_eq!(
        refusal.body.to_string(),
        r#"{"detail":"Not Found","more":1}"#
    );

    let fields = r#"{"detail":[{"type":"missing","loc":["body","nodes_specs"],"msg":"Field required","input":{}}]}"#;
    let (_, shown) = self::error(reply("422 Unprocessable Entity", "", fields));
    assert_eq!(
        shown,
        "refused (status 422): body.nodes_specs: Field required"
    );
}

#[test]
fn replies_that_are_not_json_are_shown_in_part() {
    let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body></html>";
    let (_, shown) = error(reply("502 Bad Gateway", "", page));
    assert_eq!(
        shown,
        "URL/pools answers with status 502 and not with JSON (<html> <head><title>502 Bad Gateway</title></head> <body>nginx</body></html>): \
         check that the base URL leads to Duffy's API, not to another site or a proxy"
    );
    let (_, shown) = error(reply("200 OK", "", page));
    assert!(shown.contains("status 200 and not with JSON"), "{shown}");
    let (_, shown) = error(reply("200 OK", "", ""));
    assert!(shown.contains("not with JSON (an empty body)"), "{shown}");
    let (_, shown) = error(Answer::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()));
    assert!(
        shown.contains("status 204 and not with JSON (an empty body)"),
        "{shown}"
    );
    let (_, shown) = error(reply("200 OK", "", &"[".repeat(100_000)));
    assert!(shown.contains("not with JSON ([[["), "{shown}");
    let (_, shown) = error(reply("500 Oops", "", r#"{"message": "bad gateway"}"#));
    assert_eq!(
        shown,
        "URL/pools answers with status 500 and JSON that is not a reply of Duffy's API (missing field `detail`): check the base URL"
    );
}

#[test]
fn redirects_are_not_followed() {
    let (_, shown) = error(reply(
        "301 Moved Permanently",
        "Location: https://elsewhere/api\r\n",
        "",
    ));
    assert_eq!(
        shown,
        "URL/pools redirects to https://elsewhere/api (status 301), which is not followed: set the base URL to the new location"
    );
    let peer = Peer::start(vec![reply(
        "307 Temporary Redirect",
        "Location: /x\r\n",
        "{}",
    )]);
    let error = Client::new(&settings(peer.url()))
        .unwrap()
        .retire_session(1)
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Redirected { status: 307, .. }),
        "{error:?}"
    );
    assert_eq!(peer.finish().len(), 1);
}

#[test]
fn errors_say_whether_a_write_may_have_happened() {
    let (error, shown) = self::error(Answer::Last(Vec::new()));
    assert!(
        matches!(error, ClientError::Broken { write: false, .. }),
        "{error:?}"
    );
    assert!(
        shown.contains("ended before the reply") && shown.ends_with("look at the server's log"),
        "{shown}"
    );
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\"".to_vec();
    let (error, _) = self::error(Answer::Last(cut));
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");

    let peer = Peer::start(vec![Answer::Last(Vec::new())]);
    let error = Client::new(&settings(peer.url()))
        .unwrap()
        .retire_session(1)
        .unwrap_err();
    assert!(
        error.to_string().contains("may have been carried out"),
        "{error}"
    );
    assert_eq!(peer.finish().len(), 1, "a write is not sent twice");
}

#[test]
fn other_protocols_are_recognised() {
    let (error, shown) = self::error(Answer::Last(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n".to_vec()));
    assert!(matches!(error, ClientError::NotHttp { .. }), "{error:?}");
    assert!(shown.contains("not HTTP"), "{shown}");

    // A server without TLS reads the TLS handshake as an endless request, and hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let client = Client::new(&settings(format!("https://{address}/api/v1"))).unwrap();
    let error = client.list_pools().unwrap_err();
    thread.join().unwrap();
    assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("use http://"), "{error}");
}

#[test]
fn connections_can_be_refused() {
    // The listener is dropped, so nothing listens there.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let client = Client::new(&settings(format!("http://{address}"))).unwrap();
    let error = client.list_pools().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "can't connect to http://{address}/pools: connection refused: check that Duffy's API runs there, and host and port of the URL"
        )
    );
}

#[test]
fn endless_and_missing_replies_end() {
    let (error, _) = self::error(Answer::Flood(80 * 1024 * 1024));
    assert!(
        matches!(
            error,
            ClientError::TooLarge {
                limit: 67_108_864,
                ..
            }
        ),
        "{error:?}"
    );

    let peer = Peer::start(vec![Answer::Silence]);
    let client = Client::new(&Settings {
        timeout: Some(Duration::from_millis(300)),
        ..settings(peer.url())
    })
    .unwrap();
    let error = client.list_pools().unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert!(
        error.to_string().contains("did not answer within 0.3 s"),
        "{error}"
    );
    drop(client);
    peer.finish();
}

#[test]
fn settings_are_checked_before_anything_is_sent() {
    let refuse = |settings: Settings| Client::new(&settings).unwrap_err().to_string();
    let shown = refuse(settings("duffy:8080".to_owned()));
    assert!(
        shown.starts_with("\"duffy:8080\" is not a base URL"),
        "{shown}"
    );
    let shown = refuse(Settings {
        user_agent: "a\nb".to_owned(),
        ..settings("http://h".to_owned())
    });
    assert!(shown.contains("user agent"), "{shown}");
    let ca = |path: &str| {
        refuse(Settings {
            ca_file: Some(path.into()),
            ..settings("https://h".to_owned())
        })
    };
    assert!(
        ca("/nonexistent.pem").starts_with("/nonexistent.pem: "),
        "{}",
        ca("/nonexistent.pem")
    );
    assert!(
        ca("/dev/null").contains("no certificate in PEM form"),
        "{}",
        ca("/dev/null")
    );
    // Without encryption the file is not read: it has all authorities of the system.
    let plain = Settings {
        ca_file: Some("/nonexistent.pem".into()),
        ..settings("http://127.0.0.1".to_owned())
    };
    Client::new(&plain).unwrap();
}
