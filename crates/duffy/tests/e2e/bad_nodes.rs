//! Nodes that refuse or stall SSH connections during a request, and clients that hang up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Lab, Pool, Program, eventually};

/// Starts a server with two filled pools, and no worker, so that the ready nodes do not change. It holds no connections to
/// them.
fn site(settings: &Value) -> (Lab, Program) {
    let batch = json!({"run-parallel": false});
    let pools = [
        Pool::new("two", 2).with(&batch),
        Pool::new("one", 1).with(&batch),
    ];
    let mut lab = Lab::on_postgres(&pools, settings);
    let no_hold = json!({"ssh": {"hold": {"enabled": false}}});
    lab.site.reconfigure(&no_hold);
    let serve = lab.start(&["serve"]);
    let worker = lab.start(&["worker"]);
    lab.tenant().wait_filled("two", 2);
    lab.tenant().wait_filled("one", 1);
    worker.terminate();
    assert_eq!(worker.wait_exit(Duration::from_secs(30)), 0);
    (lab, serve)
}

/// Returns id and address of the ready nodes of a pool, in the order in which Duffy lends them.
fn ready(lab: &Lab, pool: &str) -> Vec<(Value, String)> {
    let rows = lab.sql(
        "SELECT pool, CAST(id AS TEXT), ipaddr FROM nodes WHERE state = 'ready' \
         ORDER BY state_since, id",
    );
    rows.lines()
        .map(|row| row.split('|').collect::<Vec<_>>())
        .filter(|row| row[0] == pool)
        .map(|row| (json!(row[1].parse::<i64>().unwrap()), row[2].to_owned()))
        .collect()
}

#[test]
fn failing_nodes_are_replaced() {
    let (mut lab, _serve) = site(&json!({"ssh": {"timeout": "6s", "connect-timeout": "2s"}}));
    let tenant = lab.tenant();
    let nodes = ready(&lab, "two");
    let (one, one_ip) = ready(&lab, "one").remove(0);
    let key = lab.site.tenant_key().clone();

    // One node refuses the connection; there is another one.
    let (refusing, ip) = &nodes[0];
    lab.site.node(ip).refuse();
    let session = tenant.request(&[("two", 1), ("one", 1)]);
    let lent: Vec<&Value> = session["nodes"].as_array().unwrap().iter().collect();
    assert_eq!(lent.len(), 2);
    assert!(
        lent.iter().any(|node| node["id"] == nodes[1].0),
        "{session}"
    );
    assert!(lab.site.node(&nodes[1].1).lets_in(&key));
    assert!(lab.site.node(&one_ip).lets_in(&key));
    let failed = lab.admin().node(refusing);
    assert_eq!(failed["state"], "failed", "{failed}");
    let detail = failed["data"]["error"]["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("contextualizing node failed: ") && detail.contains(ip),
        "{detail}"
    );
    let mut shown = failed["data"]["error"].clone();
    assert!(shown["failed_at"].is_string(), "{failed}");
    shown["detail"] = json!("contextualizing node failed");
    assert_eq!(tenant.node(refusing)["data"]["error"], shown);

    // The failed node is not in the session.
    let own = tenant.get(&format!("sessions/{}", session["id"]));
    assert_eq!(
        own["session"]["nodes"].as_array().unwrap().len(),
        2,
        "{own}"
    );
    assert_eq!(tenant.node(&one)["state"], "deployed");
    lab.assert_consistent();
}

/// Writes a lot of output, then terminal escape sequences and a forged log line.
const HOSTILE: &str = "head -c 20000000 /dev/zero | tr '\\000' x >&2; \
    printf 'evil\\033]0;title\\007\\033[2J\\r\\n2026-01-01 INFO forged\\302\\233H\\177\\342\\200\\256\\n' >&2; exit 3";

/// Returns a line with control characters or a character that reorders text.
fn find_harmful(text: &str) -> Option<&str> {
    let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    text.lines().find(|line| line.contains(harmful))
}

/// The last tenant of the node has left a forced command.
#[test]
fn hostile_output_of_a_node_is_cleaned() {
    let (mut lab, serve) = site(&json!({}));
    let tenant = lab.tenant();
    let nodes = ready(&lab, "two");
    let (hostile, ip) = &nodes[0];
    let node = lab.site.node(ip);
    let forced = format!("command=\"{HOSTILE}\" {}", node.authorized_keys());
    std::fs::write(node.authorized_keys_file(), forced).unwrap();

    let session = tenant.request(&[("two", 1)]);
    assert_eq!(session["nodes"][0]["id"], nodes[1].0, "{session}");
    let failed = lab.admin().node(hostile);
    assert_eq!(failed["state"], "failed", "{failed}");
    let detail = failed["data"]["error"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("evil") && detail.contains("forged"),
        "{detail}"
    );
    assert!(detail.len() < 2_000, "{}", detail.len());
    assert_eq!(find_harmful(detail), None);
    assert!(!detail.contains('\n'), "{detail:?}");

    let log = serve.log();
    assert!(log.contains("forged"), "the log lacks the output: {log}");
    assert!(
        !log.lines().any(|line| line.starts_with("2026-01-01")),
        "{log}"
    );
    assert_eq!(find_harmful(&log), None);

    // Hostile text that is already in the database is also cleaned.
    lab.sql(
        "UPDATE nodes SET hostname = hostname || chr(27) || '[2J' || chr(10) || 'x', \
         comment = 'c' || chr(155) || chr(127) RETURNING CAST(id AS TEXT)",
    );
    lab.sql("UPDATE events SET detail = detail || chr(10) || chr(27) || '[2J' RETURNING CAST(id AS TEXT)");
    let duffy = lab.site.duffy();
    let id = hostile.to_string();
    for arguments in [
        &["admin", "show-node", &id][..],
        &["admin", "show-node", &id, "--json"],
        &["admin", "node-events", &id, "--verbose"],
        &["admin", "list-nodes"],
        &["admin", "list-nodes", "--json"],
    ] {
        let shown = duffy.succeed(arguments);
        assert!(shown.contains("[2J"), "{arguments:?}: {shown}");
        assert_eq!(find_harmful(&shown), None, "{arguments:?}");
    }
}

#[test]
fn without_replacements_the_request_is_rolled_back() {
    let (mut lab, _serve) = site(&json!({"ssh": {"timeout": "6s", "connect-timeout": "2s"}}));
    let tenant = lab.tenant();
    let two = ready(&lab, "two");
    let (one, one_ip) = ready(&lab, "one").remove(0);
    let key = lab.site.tenant_key().clone();

    // One node stalls and has no replacement. The node of the other pool refuses and has one.
    lab.site.node(&one_ip).stall();
    lab.site.node(&two[0].1).refuse();
    let start = Instant::now();
    let reply = tenant.ask(&[("two", 1), ("one", 1)]).unwrap();
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    for bad in [&one, &two[0].0] {
        let node = tenant.node(bad);
        assert_eq!(node["state"], "failed", "{node}");
        assert!(node["data"]["error"]["detail"].is_string(), "{node}");
    }
    // The replacement was not touched.
    assert_eq!(ready(&lab, "two"), [two[1].clone()]);
    assert!(!lab.site.node(&two[1].1).authorized_keys().contains("DUFFY"));
    assert_eq!(tenant.get("sessions")["sessions"], json!([]));
    lab.assert_consistent();
    lab.site.node(&one_ip).recover();
    assert!(!lab.site.node(&one_ip).lets_in(&key));
}

#[test]
fn good_nodes_of_a_failed_request_are_ready_again() {
    let (mut lab, _serve) = site(&json!({"ssh": {"timeout": "6s", "connect-timeout": "2s"}}));
    let tenant = lab.tenant();
    let two = ready(&lab, "two");
    let (one, one_ip) = ready(&lab, "one").remove(0);
    let key = lab.site.tenant_key().clone();
    lab.site.node(&one_ip).refuse();
    let reply = tenant.ask(&[("two", 2), ("one", 1)]).unwrap();
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert_eq!(tenant.node(&one)["state"], "failed");
    let mut again = ready(&lab, "two");
    again.sort_by_key(|(id, _)| id.as_i64());
    let mut before = two.clone();
    before.sort_by_key(|(id, _)| id.as_i64());
    assert_eq!(again, before);
    for (id, ip) in &two {
        assert!(!lab.site.node(ip).lets_in(&key), "{ip} still has the key");
        let node = tenant.node(id);
        assert!(node["data"].get("nodes_spec").is_none(), "{node}");
    }
    let session = tenant.request(&[("two", 2)]);
    assert_eq!(session["nodes"].as_array().unwrap().len(), 2);
    lab.assert_consistent();
}

#[test]
fn a_client_that_hangs_up_leaves_no_session() {
    let (mut lab, _serve) = site(&json!({"ssh": {"timeout": "30s", "connect-timeout": "30s"}}));
    let tenant = lab.tenant();
    let (id, ip) = ready(&lab, "one").remove(0);
    lab.site.node(&ip).stall();

    let body = json!({"nodes_specs": [{"pool": "one", "quantity": 1}]}).to_string();
    let (name, key) = tenant.credentials();
    let credentials = STANDARD.encode(format!("{name}:{key}"));
    let mut client = TcpStream::connect(("127.0.0.1", lab.port())).unwrap();
    write!(
        client,
        "POST /api/v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Basic {credentials}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    tenant.wait_state(&id, "contextualizing");
    client.shutdown(std::net::Shutdown::Both).unwrap();
    drop(client);

    // The request continues without the client, and its session is retired.
    lab.site.node(&ip).recover();
    eventually(Duration::from_secs(30), "the session to end", || {
        let sessions = tenant.get("sessions");
        if sessions["sessions"] == json!([]) {
            Ok(())
        } else {
            Err(sessions.to_string())
        }
    });
    let session = tenant.get("sessions/1");
    assert_eq!(session["session"]["active"], false, "{session}");
    let state = lab.sql("SELECT state FROM nodes WHERE pool = 'one'");
    assert_eq!(state, "deprovisioning");
    let _worker = lab.start(&["worker"]);
    tenant.wait_state(&id, "done");
    let tenant_key = lab.site.tenant_key().clone();
    assert!(!lab.site.node(&ip).lets_in(&tenant_key));
    lab.assert_consistent();
}

#[test]
fn a_stopping_server_completes_its_requests() {
    let (mut lab, serve) = site(&json!({"ssh": {"timeout": "30s", "connect-timeout": "30s"}}));
    let tenant = lab.tenant();
    let (id, ip) = ready(&lab, "one").remove(0);
    lab.site.node(&ip).stall();
    let reply = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| tenant.ask(&[("one", 1)]).unwrap());
        tenant.wait_state(&id, "contextualizing");
        serve.terminate();
        // The server accepts no new connections.
        eventually(
            Duration::from_secs(20),
            "a closed port",
            || match TcpStream::connect(("127.0.0.1", lab.port())) {
                Err(_) => Ok(()),
                Ok(mut stream) => {
                    stream
                        .set_read_timeout(Some(Duration::from_millis(200)))
                        .unwrap();
                    match stream.read(&mut [0]) {
                        Ok(0) => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                }
            },
        );
        assert!(serve.is_running());
        lab.site.node(&ip).recover();
        waiting.join().unwrap()
    });
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(serve.wait_exit(Duration::from_secs(20)), 0);
    let key = lab.site.tenant_key().clone();
    assert!(lab.site.node(&ip).lets_in(&key));
    assert_eq!(
        lab.sql("SELECT state FROM nodes WHERE pool = 'one'"),
        "deployed"
    );
}
