//! The commands for operators, through the binary, on a database in use.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Lab, Pool, eventually};

const TIMEOUT: Duration = Duration::from_mins(1);

const SETTINGS: &str = r#"{"tasks": {"repair-min": "1h"}}"#;

fn settings() -> Value {
    serde_json::from_str(SETTINGS).unwrap()
}

fn simulated(fill_level: u16) -> [Pool; 1] {
    [Pool::simulated("small", fill_level, &json!({}))]
}

/// Runs a command, which must succeed. Returns its JSON output.
fn succeed(lab: &Lab, args: &[&str]) -> Value {
    let printed = lab
        .site
        .duffy()
        .succeed(&[&["admin"], args, &["--json"]].concat());
    serde_json::from_str(&printed).unwrap()
}

/// Runs a command that changes a node, with this reason.
fn change(lab: &Lab, command: &str, id: &Value, reason: &str) -> Value {
    succeed(lab, &[command, &id.to_string(), "--reason", reason])
}

/// Runs a command, which must be refused. Returns its message.
fn refused(lab: &Lab, args: &[&str]) -> String {
    let output = lab.site.duffy().run(&[&["admin"], args].concat());
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    output.stderr
}

fn refused_change(lab: &Lab, command: &str, id: &Value) -> String {
    refused(lab, &[command, &id.to_string(), "--reason", "why not"])
}

/// Returns the event of a node with this cause, which must exist.
fn event(lab: &Lab, id: &Value, cause: &str) -> Value {
    let output = succeed(lab, &["node-events", &id.to_string()]);
    let found = output["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["cause"] == cause);
    found.unwrap_or_else(|| panic!("{cause}: {output}")).clone()
}

/// Checks the reason and the actor in the history.
fn assert_reason(lab: &Lab, id: &Value, cause: &str, reason: &str) {
    let event = event(lab, id, cause);
    let detail = event["detail"].as_str().unwrap();
    assert_eq!(detail, reason, "{event}");
    let actor = event["actor"].as_str().unwrap();
    assert!(
        actor.starts_with("operator ") && actor.contains('@'),
        "{event}"
    );
}

/// Registers a node. Returns its id.
fn register(lab: &Lab, hostname: &str, ipaddr: &str) -> Value {
    let node = json!({"hostname": hostname, "ipaddr": ipaddr, "data": {"a": 1}});
    let reply = lab.admin().call("POST", "nodes", Some(&node)).unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.json["node"]["id"].clone()
}

fn node(lab: &Lab, id: &Value) -> Value {
    succeed(lab, &["show-node", &id.to_string()])["node"].clone()
}

fn nodes(lab: &Lab, args: &[&str]) -> Vec<Value> {
    let listed = succeed(lab, &[&["list-nodes"], args].concat());
    listed["nodes"].as_array().unwrap().clone()
}

/// Retires a ready node and a node in a session.
fn retire_nodes(lab: &Lab) {
    let _run = lab.start(&["run"]);
    let tenant = lab.tenant();
    tenant.wait_filled("small", 2);
    let session = tenant.request(&[("small", 1)]);
    let lent = session["nodes"][0]["id"].clone();
    tenant.wait_levels("small", &json!({"ready": 2, "deployed": 1}));

    let row = node(lab, &lent);
    assert_eq!(
        [&row["session_id"], &row["tenant"], &row["state"]],
        [&session["id"], &json!("tenant"), &json!("deployed")]
    );
    let ready = nodes(lab, &["--pool", "small", "--state", "ready"]);
    assert_eq!(ready.len(), 2);
    let idle = ready[0]["id"].clone();
    assert_eq!(nodes(lab, &[]).len(), 3);
    assert!(nodes(lab, &["--pool", "none"]).is_empty());
    let table = lab.site.duffy().succeed(&["admin", "list-nodes"]);
    assert_eq!(table.lines().count(), 4, "{table}");

    let changed = change(lab, "retire-node", &idle, "broken fan");
    assert_eq!(changed["outcome"], "deprovisioning", "{changed}");
    tenant.wait_state(&idle, "done");
    assert_reason(lab, &idle, "node-retired", "broken fan");
    assert!(refused_change(lab, "retire-node", &idle).contains("is retired"));

    let changed = change(lab, "retire-node", &lent, "too old");
    assert_eq!(changed["outcome"], "when-returned");
    let words = format!("will be gone when session {} of tenant ends", session["id"]);
    assert_eq!(changed["message"], words);
    assert_eq!(node(lab, &lent)["state"], "deployed");
    tenant.retire(&session);
    tenant.wait_state(&lent, "done");
    tenant.wait_filled("small", 2);
    let retired = nodes(lab, &["--state", "done"]);
    assert_eq!(retired.len(), 2);
    assert_eq!(nodes(lab, &["--all"]).len(), 4);
    lab.assert_consistent();
}

#[test]
fn nodes_are_retired() {
    retire_nodes(&Lab::on_postgres(&simulated(2), &settings()));
}

#[test]
fn nodes_are_retired_on_sqlite() {
    retire_nodes(&Lab::on_sqlite(&simulated(2), &settings()));
}

/// Checks what each command does in each state, without a worker.
fn check_commands_by_state(lab: &Lab) {
    let _serve = lab.start(&["serve"]);
    let register = |number: u8| {
        let address = format!("192.0.2.{number}");
        register(lab, &format!("n{number}"), &address)
    };
    let ids: Vec<Value> = (1..=10).map(register).collect();
    lab.sql(
        "UPDATE nodes SET state = 'failed', pool = 'small', attempts = 5, repairs = 3, \
         data = '{\"a\": 1, \"error\": {\"detail\": \"it broke\\nbadly\", \"log\": \"one\\ntwo\"}}' \
         WHERE hostname IN ('n1', 'n2', 'n3')",
    );
    lab.sql(
        "UPDATE nodes SET state = 'failed', repairs = 3, \
         data = '{\"a\": 1, \"error\": {\"detail\": \"it broke\"}}' \
         WHERE hostname IN ('n4', 'n5')",
    );
    lab.sql("UPDATE nodes SET reusable = FALSE WHERE hostname = 'n5'");
    lab.sql(
        "UPDATE nodes SET state = 'deprovisioning', pool = 'small', attempts = 4, \
         retry_at = '2999-01-01 00:00:00.000000' WHERE hostname IN ('n6', 'n7')",
    );
    lab.sql(
        "UPDATE nodes SET lease = 'x', lease_expires_at = '2999-01-01 00:00:00.000000' \
         WHERE hostname = 'n7'",
    );

    // Failed nodes are deprovisioned, made unused, or retired.
    let shown = lab
        .site
        .duffy()
        .succeed(&["admin", "show-node", &ids[0].to_string()]);
    assert!(
        shown.contains("two") && shown.contains("registered"),
        "{shown}"
    );
    let listed = nodes(lab, &["--state", "failed"]);
    assert_eq!(listed.len(), 5);
    assert_eq!(listed[0]["error"], "it broke");
    let changed = change(lab, "repair-node", &ids[0], "power is back");
    assert_eq!(changed["outcome"], "deprovisioning");
    let row = &changed["node"];
    assert_eq!([&row["attempts"], &row["repairs"]], [0, 0]);
    assert_eq!(row["state"], "deprovisioning");
    assert_reason(lab, &ids[0], "repaired", "power is back");
    assert_eq!(
        change(lab, "repair-node", &ids[3], "found")["outcome"],
        "unused"
    );
    let data = lab.admin().node(&ids[3])["data"].clone();
    assert_eq!(data, json!({"a": 1, "stale_keys": true}));
    let words = refused_change(lab, "repair-node", &ids[4]);
    assert!(words.contains("admin retire-node"), "{words}");
    assert_eq!(
        change(lab, "retire-node", &ids[4], "lost")["outcome"],
        "gone"
    );
    assert_eq!(node(lab, &ids[4])["state"], "done");
    assert_reason(lab, &ids[4], "node-retired", "lost");

    // A node in its backoff is retried now. A leased node is not repaired, but it can be retired.
    let changed = change(lab, "repair-node", &ids[5], "now");
    assert_eq!(changed["outcome"], "tried-now");
    assert_eq!(changed["node"]["retry_at"], Value::Null);
    let words = refused_change(lab, "repair-node", &ids[6]);
    assert!(words.contains("being worked on"), "{words}");
    let changed = change(lab, "retire-node", &ids[6], "old");
    assert_eq!(changed["outcome"], "deprovisioning");
    assert_eq!(changed["node"]["reusable"], false);
    assert!(changed["node"]["leased_until"].is_string(), "{changed}");

    // A contextualizing node can be neither repaired nor retired.
    lab.sql("UPDATE nodes SET state = 'contextualizing' WHERE hostname = 'n10'");
    let words = refused_change(lab, "retire-node", &ids[9]);
    assert!(words.contains("being worked on"), "{words}");
    let words = refused_change(lab, "repair-node", &ids[9]);
    assert!(words.contains("is contextualizing"), "{words}");

    // An unused node cannot be repaired, and is retired immediately.
    let words = refused_change(lab, "repair-node", &ids[7]);
    assert!(words.contains("is unused"), "{words}");
    let changed = change(lab, "retire-node", &ids[7], "sold");
    assert_eq!(changed["outcome"], "gone");
    assert!(changed["node"]["retired_at"].is_string(), "{changed}");
    assert!(refused_change(lab, "retire-node", &json!(99)).contains("there is no node 99"));

    // If another active node has the machine, it is not touched.
    lab.sql("UPDATE nodes SET ipaddr = '192.0.2.9' WHERE hostname = 'n2'");
    let words = refused_change(lab, "repair-node", &ids[1]);
    assert!(words.contains("admin retire-node"), "{words}");
    assert_eq!(node(lab, &ids[1])["state"], "failed");
    let changed = change(lab, "retire-node", &ids[1], "double");
    assert_eq!(changed["outcome"], "machine-taken");
    assert_eq!(node(lab, &ids[1])["state"], "done");
    assert_eq!(node(lab, &ids[8])["state"], "unused");

    // A held node does not change until it is released.
    let id = &ids[2];
    let changed = change(lab, "hold-node", id, "looking");
    assert_eq!(changed["outcome"], "held");
    assert!(changed["node"]["held_at"].is_string(), "{changed}");
    assert_reason(lab, id, "held", "looking");
    for command in ["hold-node", "retire-node", "repair-node"] {
        let words = refused_change(lab, command, id);
        assert!(words.contains("hold-node --release"), "{words}");
    }
    let number = id.to_string();
    let release = ["hold-node", &number, "--release", "--reason", "seen"];
    let changed = succeed(lab, &release);
    assert_eq!(changed["outcome"], "released");
    assert_eq!(changed["node"]["held_at"], Value::Null);
    assert_reason(lab, id, "released", "seen");
    assert!(refused(lab, &release).contains("is not held"));
    let words =
        lab.site
            .duffy()
            .succeed(&["admin", "retire-node", &number, "--reason", "for people"]);
    assert!(
        words.starts_with(&format!("OK: node {number}: ")),
        "{words}"
    );
}

#[test]
fn commands_depend_on_the_state() {
    check_commands_by_state(&Lab::on_postgres(&simulated(1), &settings()));
}

#[test]
fn commands_depend_on_the_state_on_sqlite() {
    check_commands_by_state(&Lab::on_sqlite(&simulated(1), &settings()));
}

#[test]
fn a_held_node_is_not_lent_and_is_replaced() {
    let lab = Lab::on_postgres(&simulated(1), &settings());
    let tenant = lab.tenant();
    {
        let _run = lab.start(&["run"]);
        tenant.wait_filled("small", 1);
        // Without a worker, the pool is not filled.
    }
    let _serve = lab.start(&["serve"]);
    let held = nodes(&lab, &["--state", "ready"])[0]["id"].clone();
    change(&lab, "hold-node", &held, "looking");
    assert_eq!(tenant.ask(&[("small", 1)]).unwrap().status, 422);
    let pools = succeed(&lab, &["list-pools"]);
    assert_eq!(pools["pools"][0]["held"], 1, "{pools}");

    // A held node is not available.
    tenant.wait_levels("small", &json!({"ready": 0}));
    let _worker = lab.start(&["worker"]);
    tenant.wait_filled("small", 1);
    let session = tenant.request(&[("small", 1)]);
    let lent = session["nodes"][0]["id"].clone();
    assert_ne!(lent, held);
    // A held node in a session is kept after the session.
    change(&lab, "hold-node", &lent, "looking too");
    tenant.retire(&session);
    let number = lent.to_string();
    let state = |id: &Value| node(&lab, id)["state"].clone();
    assert_eq!(state(&lent), "deprovisioning");
    // Another session does not get it.
    tenant.wait("another node", |api| {
        let reply = api.ask(&[("small", 1)])?;
        if reply.status == 201 {
            Ok(())
        } else {
            Err(reply.text)
        }
    });
    assert_eq!(state(&lent), "deprovisioning");
    assert_eq!(state(&held), "ready");
    succeed(
        &lab,
        &["hold-node", &number, "--release", "--reason", "seen"],
    );
    tenant.wait_state(&lent, "done");
}

/// The end of a session ends the tenant's access, also to a held node.
fn remove_the_key_from_a_held_node(mut lab: Lab) {
    let tenant = lab.tenant();
    let worker = lab.start(&["worker"]);
    let _serve = lab.start(&["serve"]);
    tenant.wait_filled("pool", 1);
    let session = tenant.request(&[("pool", 1)]);
    let id = session["nodes"][0]["id"].clone();
    let ip = session["nodes"][0]["ipaddr"].as_str().unwrap().to_owned();
    let key = lab.site.tenant_key().public().to_owned();
    assert!(lab.site.node(&ip).authorized_keys().contains(&key));
    change(&lab, "hold-node", &id, "looking");
    let events = |lab: &Lab| succeed(lab, &["node-events", &id.to_string()]).to_string();
    let wait_for_event = |lab: &Lab, text: &str| {
        eventually(TIMEOUT, text, || {
            let events = events(lab);
            if events.contains(text) {
                Ok(())
            } else {
                Err(events)
            }
        });
    };

    // The first attempt to remove the key fails.
    lab.site.node(&ip).refuse();
    tenant.retire(&session);
    wait_for_event(&lab, "could not be taken off");
    // When the worker dies, another one continues.
    lab.site.node(&ip).recover();
    lab.site.node(&ip).stall();
    eventually(TIMEOUT, "an attempt to run", || {
        if node(&lab, &id)["leased_until"].is_null() {
            Err("no lease".to_owned())
        } else {
            Ok(())
        }
    });
    worker.kill9();
    lab.site.node(&ip).recover();
    let _worker = lab.start(&["worker"]);
    wait_for_event(&lab, "keys-removed");
    assert!(!lab.site.node(&ip).authorized_keys().contains(&key));
    assert_eq!(node(&lab, &id)["state"], "deprovisioning");
    assert!(
        lab.site
            .events("pool")
            .iter()
            .all(|line| line.starts_with("provision"))
    );

    let number = id.to_string();
    succeed(
        &lab,
        &["hold-node", &number, "--release", "--reason", "seen"],
    );
    tenant.wait_state(&id, "done");
}

#[test]
fn a_held_node_loses_its_tenants_key() {
    let pool = [Pool::new("pool", 1)];
    remove_the_key_from_a_held_node(Lab::on_postgres(&pool, &settings()));
}

#[test]
fn a_held_node_loses_its_tenants_key_on_sqlite() {
    let pool = [Pool::new("pool", 1)];
    remove_the_key_from_a_held_node(Lab::on_sqlite(&pool, &settings()));
}

/// Drains and resumes a pool.
fn drain(lab: &Lab) {
    let _run = lab.start(&["run"]);
    let tenant = lab.tenant();
    tenant.wait_filled("small", 2);
    let session = tenant.request(&[("small", 1)]);
    tenant.wait_levels("small", &json!({"ready": 2, "deployed": 1}));
    assert!(tenant.get("pools/small")["pool"].get("drained").is_none());

    let drained = succeed(lab, &["drain-pool", "small", "--reason", "new image"]);
    assert_eq!(drained["outcome"], "drained");
    assert_eq!(drained["pool"]["drained"]["reason"], "new image");
    assert_eq!(tenant.ask(&[("small", 1)]).unwrap().status, 422);
    let levels = json!({"deployed": 1});
    tenant.wait_levels("small", &levels);
    let pool = tenant.get("pools/small")["pool"].clone();
    assert!(pool["drained"]["since"].is_string(), "{pool}");
    assert_eq!(pool["drained"].as_object().unwrap().len(), 1, "{pool}");
    assert_eq!(tenant.get("sessions")["sessions"][0]["id"], session["id"]);
    let table = lab.site.duffy().succeed(&["admin", "list-pools"]);
    assert!(
        table.contains("drained since") && table.contains("new image"),
        "{table}"
    );
    tenant.retire(&session);
    tenant.wait_levels("small", &json!({}));

    let resumed = succeed(lab, &["resume-pool", "small", "--reason", "it is there"]);
    assert_eq!(resumed["pool"]["drained"], Value::Null, "{resumed}");
    tenant.wait_filled("small", 2);
    assert_eq!(
        lab.sql(
            "SELECT cause, detail FROM events WHERE pool = 'small' AND node_id IS NULL ORDER BY id"
        ),
        "drained|new image\nresumed|it is there"
    );
    let words = refused(lab, &["resume-pool", "small", "--reason", "again"]);
    assert!(words.contains("neither drained nor failing"), "{words}");
    for command in ["drain-pool", "resume-pool"] {
        let words = refused(lab, &[command, "nope", "--reason", "x"]);
        assert!(words.contains("no pool \"nope\", only: small"), "{words}");
    }
    // A pool that is no longer in the configuration, but still has a node.
    lab.sql("UPDATE nodes SET pool = 'former' WHERE state = 'done'");
    refused(lab, &["drain-pool", "former", "--reason", "x"]);
    lab.sql(
        "INSERT INTO nodes (pool, state, reusable, data, created_at) \
             SELECT 'former', 'failed', FALSE, '{}', created_at FROM nodes WHERE id = 1",
    );
    succeed(lab, &["drain-pool", "former", "--reason", "x"]);
    let pools = succeed(lab, &["list-pools"]);
    let former = &pools["pools"][1];
    assert_eq!(
        [&former["name"], &former["fill_level"]],
        [&json!("former"), &Value::Null]
    );
    assert_eq!(
        [&former["configured"], &former["levels"]["failed"]],
        [&json!(false), &json!(1)]
    );
    succeed(lab, &["resume-pool", "former", "--reason", "x"]);
}

#[test]
fn a_drained_pool_stays_empty_until_it_is_resumed() {
    drain(&Lab::on_postgres(&simulated(2), &settings()));
}

#[test]
fn a_drained_pool_stays_empty_until_it_is_resumed_on_sqlite() {
    drain(&Lab::on_sqlite(&simulated(2), &settings()));
}

#[test]
fn a_pool_shows_that_it_keeps_failing_and_can_be_retried() {
    let pool = Pool::simulated("bad", 5, &json!({"provision-failure-rate": 1.0}));
    let settings = json!({"tasks": {
        "repair-min": "1h", "backoff-min": "1h", "backoff-max": "1h", "pool-backoff-max": "1h"
    }});
    let mut lab = Lab::on_postgres(&[pool], &settings);
    let tenant = lab.tenant();
    {
        let run = lab.start(&["run"]);
        let failing = tenant.wait("a failing pool", |api| {
            let pool = api.get("pools/bad")["pool"].clone();
            let failing = pool.get("failing").cloned();
            failing.ok_or_else(|| pool.to_string())
        });
        assert_eq!(failing.as_array().unwrap().len(), 1, "{failing}");
        assert_eq!(failing[0]["work"], "provisioning");
        assert!(failing[0]["retry_at"].is_string(), "{failing}");
        assert!(failing[0]["failures"].as_u64() >= Some(3), "{failing}");
        assert!(failing[0].get("detail").is_none(), "{failing}");
        // Without SIGKILL, because a killed process leaves leases.
        run.terminate();
        assert_eq!(run.wait_exit(Duration::from_secs(30)), 0);
    }
    let pools = succeed(&lab, &["list-pools"]);
    let failing = &pools["pools"][0]["failing"][0];
    assert!(
        failing["detail"].as_str().unwrap().contains("provisioning"),
        "{pools}"
    );
    let table = lab.site.duffy().succeed(&["admin", "list-pools"]);
    assert!(table.contains("times in a row, next try"), "{table}");
    let waiting = nodes(&lab, &["--state", "provisioning"]);
    let tried = waiting
        .iter()
        .find(|node| node["retry_at"].is_string())
        .unwrap();
    let changed = change(&lab, "repair-node", &tried["id"], "try it");
    let words = changed["message"].as_str().unwrap();
    assert!(words.contains("pool keeps failing"), "{words}");

    lab.site
        .reconfigure(&json!({"nodepools": {"concrete": {"bad": {"mechanism": {
        "simulated": {"provision-failure-rate": 0.0}}}}}}));
    succeed(&lab, &["resume-pool", "bad", "--reason", "mended"]);
    for node in nodes(&lab, &["--state", "provisioning"]) {
        change(&lab, "repair-node", &node["id"], "mended");
    }
    let _run = lab.start(&["run"]);
    tenant.wait_filled("bad", 5);
}

#[test]
fn a_node_retired_during_provisioning_is_deprovisioned() {
    let lab = Lab::on_postgres(&[Pool::new("metal", 1)], &settings());
    lab.site.pause("metal", "provision");
    let _run = lab.start(&["run"]);
    lab.site.wait_until_paused("metal", "provision");
    let id = nodes(&lab, &["--pool", "metal"])[0]["id"].clone();
    succeed(&lab, &["drain-pool", "metal", "--reason", "no more"]);
    assert_eq!(node(&lab, &id)["state"], "provisioning", "it is leased");
    let changed = change(&lab, "retire-node", &id, "not this one");
    assert_eq!(changed["outcome"], "deprovisioning");
    lab.site.resume("metal", "provision");
    lab.tenant().wait_state(&id, "done");
    assert_eq!(lab.site.taken("metal"), 0);
    assert_eq!(
        event(&lab, &id, "node-retired")["from_state"],
        "provisioning"
    );
    let made = event(&lab, &id, "provisioned");
    assert_eq!(made["to_state"], "deprovisioning", "it was never ready");
}

#[test]
fn purge_removes_old_history() {
    let lab = Lab::on_postgres(&simulated(1), &settings());
    let _serve = lab.start(&["serve"]);
    let id = register(&lab, "n", "192.0.2.1");
    change(&lab, "hold-node", &id, "kept");
    lab.sql("UPDATE events SET created_at = '2020-01-01' WHERE cause = 'registered'");
    let purge = ["purge", "--older-than", "90d", "--reason", "full"];
    let dry = succeed(&lab, &[&purge[..], &["--dry-run"]].concat());
    assert_eq!(dry, json!({"events": 1, "dry_run": true}));
    assert_eq!(lab.sql("SELECT CAST(count(*) AS TEXT) FROM events"), "2");
    let output = lab.site.duffy().run(&[&["admin"], &purge[..]].concat());
    assert_eq!(output.stdout, "OK: removed 1 events\n");
    assert_eq!(
        lab.sql("SELECT cause, detail FROM events ORDER BY id"),
        "held|kept\npurged|1 events older than 7776000 s: full"
    );
    assert_eq!(
        succeed(&lab, &purge),
        json!({"events": 0, "dry_run": false})
    );
    assert_eq!(node(&lab, &id)["state"], "unused", "rows stay");
}

#[test]
fn wrong_usage_is_reported() {
    let lab = Lab::on_sqlite(&simulated(1), &settings());
    for args in [
        &["retire-node", "1"][..],
        &["retire-node", "1", "--reason", " "],
        &["repair-node", "one", "--reason", "x"],
        &["hold-node", "--reason", "x"],
        &["drain-pool", "small"],
        &["list-nodes", "--state", "nonsense"],
        &["node-events", "1", "--limit", "0"],
        &["purge", "--reason", "x"],
        &["purge", "--older-than", "90", "--reason", "x"],
        &["purge", "--older-than", "5m", "--reason", "x"],
    ] {
        let output = lab.site.duffy().run(&[&["admin"], args].concat());
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{args:?}");
    }
}
