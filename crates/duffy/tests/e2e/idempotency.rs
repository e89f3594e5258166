//! Requests that are repeated with an Idempotency-Key: one session and one reply, from any server.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use duffy_server::context::Context;
use duffy_server::lifecycle::request::idempotency::Promise;
use serde_json::{Value, json};

use crate::support::{
    Api, Duffy, Lab, Pool, Program, Proxy, Reply, SshNode, free_port, run_concurrently,
    wait_for_log,
};

const REPLAYED: &str = "idempotent-replayed";

fn granted(api: &Api, key: &str) -> Reply {
    let reply = api.ask_with_key(&[("pool", 1)], key).unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply
}

fn sessions(lab: &Lab) -> String {
    lab.sql("SELECT CAST(count(*) AS TEXT) FROM sessions")
}

fn one_reply_per_key(lab: &Lab) {
    let (tenant, admin) = (lab.tenant(), lab.admin());
    tenant.wait_filled("pool", 3);
    let first = granted(&tenant, "key");
    assert_eq!(first.header(REPLAYED), None);
    let again = granted(&tenant, "key");
    assert_eq!(again.header(REPLAYED), Some("true"));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(again.text, first.text);
    assert_eq!(sessions(lab), "1");

    // A different request with the key is refused. Keys of different tenants are independent.
    let other = tenant.ask_with_key(&[("pool", 2)], "key").unwrap();
    assert_eq!(other.status, 422, "{}", other.text);
    assert!(other.text.contains("Idempotency-Key"), "{}", other.text);
    let theirs = granted(&admin, "key");
    assert_eq!(theirs.header(REPLAYED), None);
    assert_ne!(theirs.json["session"]["id"], first.json["session"]["id"]);
    for bad in ["", "two words", &"k".repeat(256)] {
        let reply = tenant.ask_with_key(&[("pool", 1)], bad).unwrap();
        assert_eq!(reply.status, 422, "{bad:?}: {}", reply.text);
    }
    assert_eq!(sessions(lab), "2");

    // A refused request is not stored.
    let refused = tenant.ask_with_key(&[("pool", 99)], "later").unwrap();
    assert_eq!(refused.status, 422, "{}", refused.text);
    tenant.wait_levels("pool", &json!({"ready": 3, "deployed": 2}));
    let later = granted(&tenant, "later");
    assert_eq!(later.header(REPLAYED), None);

    // A late repetition gets the same reply, too.
    tenant.retire(&first.json["session"]);
    assert_eq!(granted(&tenant, "key").text, first.text);
    assert_eq!(sessions(lab), "3");
    lab.assert_consistent();
}

#[test]
fn a_repeated_request_gets_the_same_reply_on_postgresql() {
    let pool = Pool::simulated("pool", 3, &json!({}));
    let lab = Lab::on_postgres(&[pool], &json!({}));
    let _run = lab.start(&["run"]);
    one_reply_per_key(&lab);
}

#[test]
fn a_repeated_request_gets_the_same_reply_on_sqlite() {
    let pool = Pool::simulated("pool", 3, &json!({}));
    let lab = Lab::on_sqlite(&[pool], &json!({}));
    let _run = lab.start(&["run"]);
    one_reply_per_key(&lab);
}

#[test]
fn concurrent_requests_to_two_servers_get_one_session() {
    let pool = Pool::simulated("pool", 3, &json!({"ssh-delay": "2s"}));
    let lab = Lab::on_postgres(&[pool], &json!({}));
    let other_port = free_port();
    let _serve = lab.start(&["serve"]);
    let _other = lab.start(&["serve", "-p", &other_port.to_string()]);
    let _worker = lab.start(&["worker"]);
    let servers = [lab.tenant(), lab.tenant_at(other_port)];
    servers[0].wait_filled("pool", 3);
    let replies = run_concurrently(6, |number| granted(&servers[number % 2], "key"));
    let first: Vec<&Reply> = replies
        .iter()
        .filter(|reply| reply.header(REPLAYED).is_none())
        .collect();
    assert_eq!(first.len(), 1, "{replies:?}");
    assert!(replies.iter().all(|reply| reply.text == first[0].text));
    assert_eq!(sessions(&lab), "1");
    lab.assert_consistent();
}

/// Starts a server and a worker with two ready machines, and four more.
fn two_machines(settings: &Value) -> (Lab, Program, Program) {
    let pool = Pool::new("pool", 6).with(&json!({"fill-level": 2}));
    let lab = Lab::on_postgres(&[pool], settings);
    let serve = lab.start(&["serve"]);
    let worker = lab.start(&["worker"]);
    lab.tenant().wait_filled("pool", 2);
    (lab, serve, worker)
}

fn set_stalling(lab: &mut Lab, stalling: bool) {
    let machines: Vec<String> = lab.site.nodes().map(SshNode::ip).collect();
    for ip in machines {
        let node = lab.site.node(&ip);
        if stalling {
            node.stall();
        } else {
            node.recover();
        }
    }
}

/// Sends a request, and hangs up when a node is contextualizing.
fn hang_up(lab: &Lab, key: &str) {
    let body = json!({"nodes_specs": [{"pool": "pool", "quantity": 1}]}).to_string();
    let tenant = lab.tenant();
    let (name, api_key) = tenant.credentials();
    let credentials = STANDARD.encode(format!("{name}:{api_key}"));
    let mut client = TcpStream::connect(("127.0.0.1", lab.port())).unwrap();
    write!(
        client,
        "POST /api/v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Basic {credentials}\r\n\
         idempotency-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    wait_until_contextualizing(&tenant);
    client.shutdown(Shutdown::Both).unwrap();
}

fn wait_until_contextualizing(tenant: &Api) {
    tenant.wait("a contextualizing node", |api| {
        let levels = api.get("pools/pool")["pool"]["levels"].clone();
        if levels["contextualizing"] == 1 {
            Ok(())
        } else {
            Err(levels.to_string())
        }
    });
}

#[test]
fn a_repeated_request_takes_over_from_a_killed_server() {
    let ssh = json!({"ssh": {"timeout": "40s", "connect-timeout": "40s"}});
    let (mut lab, serve, _worker) = two_machines(&ssh);
    let other_port = free_port();
    let _other = lab.start(&["serve", "-p", &other_port.to_string()]);
    let (here, there) = (lab.tenant(), lab.tenant_at(other_port));
    set_stalling(&mut lab, true);
    let repeated = std::thread::scope(|scope| {
        let first = scope.spawn(|| here.ask_with_key(&[("pool", 1)], "key"));
        wait_until_contextualizing(&there);
        serve.kill9();
        first.join().unwrap().unwrap_err();
        // Until the lease expires, the first request seems to run.
        let repeated = scope.spawn(|| granted(&there, "key"));
        set_stalling(&mut lab, false);
        repeated.join().unwrap()
    });
    assert_eq!(repeated.header(REPLAYED), None, "there was no reply before");
    assert_eq!(sessions(&lab), "2");
    let active = lab.sql("SELECT CAST(id AS TEXT) FROM sessions WHERE retired_at IS NULL");
    assert_eq!(active, repeated.json["session"]["id"].to_string());
    assert_eq!(granted(&there, "key").text, repeated.text);
    lab.assert_consistent();
}

#[tokio::test]
async fn a_client_that_hung_up_can_repeat_its_request() {
    let ssh = json!({"ssh": {"timeout": "40s", "connect-timeout": "40s"}});
    let (mut lab, serve, _worker) = two_machines(&ssh);
    let tenant = lab.tenant();
    set_stalling(&mut lab, true);
    hang_up(&lab, "key");
    set_stalling(&mut lab, false);
    wait_for_log(&serve, "nobody took the session");
    let session = granted(&tenant, "key").json["session"].clone();
    assert_eq!(tenant.get("sessions")["sessions"], json!([session]));

    // After the repetition, the session stays.
    let config = duffy_config::load_files(&[lab.site.config().to_owned()]).unwrap();
    let ctx = Context::open(Arc::new(config)).await.unwrap();
    let promise = |key: &str, session: &Value| Promise {
        tenant_id: session["tenant"]["id"].as_i64().unwrap(),
        key: key.to_owned(),
        session_id: session["id"].as_i64().unwrap(),
    };
    assert!(!promise("key", &session).give_up(&ctx).await.unwrap());
    assert_eq!(tenant.get("sessions")["sessions"], json!([session]));
    tenant.retire(&session);
    tenant.wait_filled("pool", 2);

    // Without a repetition, the session ends, and the key can be used again.
    set_stalling(&mut lab, true);
    hang_up(&lab, "other");
    set_stalling(&mut lab, false);
    tenant.wait_levels("pool", &json!({"ready": 2, "deployed": 1}));
    let left = tenant.get("sessions")["sessions"][0].clone();
    assert!(promise("other", &left).give_up(&ctx).await.unwrap());
    assert_eq!(tenant.get("sessions")["sessions"], json!([]));
    tenant.wait_filled("pool", 2);
    let fresh = tenant.ask_with_key(&[("pool", 1)], "other").unwrap();
    assert_eq!(fresh.header(REPLAYED), None);
    assert_ne!(fresh.json["session"]["id"], left["id"]);
    lab.assert_consistent();
}

/// The command repeats its request when a reply is lost.
#[test]
fn the_command_survives_a_lost_reply() {
    let pool = Pool::simulated("pool", 2, &json!({}));
    let lab = Lab::on_sqlite(&[pool], &json!({}));
    let _run = lab.start(&["run"]);
    let tenant = lab.tenant();
    tenant.wait_filled("pool", 2);
    let proxy = Proxy::start(lab.port());
    let url = format!("http://127.0.0.1:{}/api/v1", proxy.port());
    let (name, key) = tenant.credentials();
    let duffy: Duffy = lab.site.duffy().with_env("DUFFY_AUTH_KEY", key);
    let run = |arguments: &[&str]| -> Value {
        let options = ["client", "--url", &url, "--auth-name", name];
        proxy.lose_next_reply();
        let output = duffy.run(&[&options, arguments].concat());
        assert_eq!(output.code, 0, "{output:?}");
        assert!(output.stderr.contains("asking again"), "{output:?}");
        serde_json::from_str(&output.stdout).unwrap()
    };
    let granted = run(&["request-session", "pool=pool,quantity=1"]);
    assert_eq!(granted["action"], "post");
    let session = &granted["session"];
    assert_eq!(tenant.get("sessions")["sessions"], json!([session]));
    let retired = run(&["retire-session", &session["id"].to_string()]);
    assert_eq!(retired["action"], "put");
    assert_eq!(retired["session"]["active"], false);
    assert_eq!(sessions(&lab), "1");
}

/// A repeated request that waits for the first one does not delay a stopping server.
#[test]
fn a_stopping_server_refuses_waiting_requests() {
    let ssh = json!({"ssh": {"timeout": "40s", "connect-timeout": "40s"}});
    let (mut lab, serve, _worker) = two_machines(&ssh);
    let other_port = free_port();
    let other = lab.start(&["serve", "-p", &other_port.to_string()]);
    let (here, there) = (lab.tenant(), lab.tenant_at(other_port));
    set_stalling(&mut lab, true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| granted(&here, "key"));
        wait_until_contextualizing(&here);
        let second = scope.spawn(|| there.ask_with_key(&[("pool", 1)], "key"));
        wait_for_log(&other, "waiting for the reply");
        other.terminate();
        let second = second.join().unwrap().unwrap();
        assert_eq!(second.status, 503, "{}", second.text);
        assert!(second.header("retry-after").is_some());
        assert_eq!(other.wait_exit(Duration::from_secs(30)), 0);
        set_stalling(&mut lab, false);
        first.join().unwrap();
    });
    drop(serve);
}
