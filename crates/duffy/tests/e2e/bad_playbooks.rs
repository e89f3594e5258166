//! Playbooks that fail, hang, or return invalid results.

use serde_json::{Value, json};

use crate::support::{Api, Lab, Pool, http};

/// Returns the content of a file as its result.
const RESULT_FROM_FILE: &str = "\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Set the result
      ansible.builtin.set_fact:
        duffy_out: \"{{ lookup('ansible.builtin.file', told) | from_json }}\"
";

/// Waits until a node has an error with this text, and returns the error.
fn wait_for_error(api: &Api, id: i64, text: &str) -> Value {
    api.wait(&format!("an error of node {id} with {text:?}"), |api| {
        // The node may not exist yet.
        let reply = api.call("GET", &format!("nodes/{id}"), None)?;
        let error = &reply.json["node"]["data"]["error"];
        match error["detail"].as_str() {
            Some(detail) if detail.contains(text) => Ok(error.clone()),
            _ => Err(error.to_string()),
        }
    })
}

#[test]
fn failing_playbooks_are_retried_up_to_the_limit() {
    let pool = Pool::new("pool", 2).with(&json!({"fill-level": 1,
        "mechanism": {"ansible": {"timeout": "10s"}}}));
    let mut lab = Lab::on_sqlite(
        &[pool],
        &json!({"tasks": {"attempts": 3, "backoff-min": "3s", "backoff-max": "3s"}}),
    );
    lab.site.set_failing("pool", "provision", true);
    let run = lab.start(&["run"]);
    let (tenant, operator) = (lab.tenant(), lab.admin());

    // The first attempt fails, the second one succeeds.
    let error = wait_for_error(&operator, 1, "provisioning node failed: ");
    lab.site.set_failing("pool", "provision", false);
    let detail = error["detail"].as_str().unwrap();
    assert!(
        detail.contains("provision.yml") && detail.contains("Take machines"),
        "{detail}"
    );
    // Only administrators see the cause, which quotes the playbook.
    let public = json!({
        "failed_at": error["failed_at"], "detail": "provisioning node failed"
    });
    assert_eq!(tenant.node(&json!(1))["data"]["error"], public);
    let url = format!("http://127.0.0.1:{}/api/v1/nodes", lab.port());
    let listed = http("GET", &url, None, None).unwrap();
    assert_eq!(listed.json["nodes"][0]["data"]["error"], public);
    let log = error["log"].as_str().unwrap();
    assert!(
        log.contains("machines.sh: provision fails on purpose"),
        "{log}"
    );
    assert!(error["failed_at"].is_string());
    assert_ne!(tenant.node(&json!(1))["state"], "failed");
    let ready = operator.wait_state(&json!(1), "ready");
    assert!(ready["data"].get("error").is_none(), "{ready}");
    assert_eq!(
        lab.site.events("pool").len(),
        2,
        "{:?}",
        lab.site.events("pool")
    );

    // A playbook hangs, then it always fails.
    let session = tenant.request(&[("pool", 1)]);
    lab.site.pause("pool", "deprovision");
    tenant.retire(&session);
    let error = wait_for_error(&operator, 1, "not done within 10s");
    assert!(
        error["detail"]
            .as_str()
            .unwrap()
            .starts_with("deprovisioning node failed")
    );
    lab.site.set_failing("pool", "deprovision", true);
    lab.site.resume("pool", "deprovision");
    let failed = operator.wait_state(&json!(1), "failed");
    let error = &failed["data"]["error"];
    assert!(
        error["log"]
            .as_str()
            .unwrap()
            .contains("deprovision fails on purpose"),
        "{error}"
    );
    let mut events = lab.site.events("pool");
    events.retain(|event| event == "deprovision 1");
    assert_eq!(events.len(), 3, "tasks.attempts");

    // Another node replaces it, which can be lent.
    tenant.wait_filled("pool", 1);
    tenant.request(&[("pool", 1)]);
    lab.assert_consistent();
    drop(run);

    // The same limit holds for provisioning: the pool gets another node with the next machine.
    lab.site.reconfigure(&json!({"tasks": {"attempts": 1}}));
    lab.site.set_failing("pool", "provision", true);
    let _run = lab.start(&["run"]);
    let failed = tenant.wait("a failed node", |api| {
        let nodes = api.nodes();
        let failed = nodes
            .iter()
            .find(|node| node["state"] == "failed" && node["id"] != 1);
        failed.cloned().ok_or_else(|| format!("{nodes:?}"))
    });
    let detail = failed["data"]["error"]["detail"].as_str().unwrap();
    assert!(detail.starts_with("provisioning node failed"), "{detail}");
}

/// Uses all data of nodes, and fails the first time with a message that looks like a template.
const USES_NODE_DATA: &str = "\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: '{{ item }} {{ item.hostname }}'}
      loop: '{{ duffy_in.nodes }}'
    - name: Fail once
      ansible.builtin.command:
        argv: [sh, -c, 'mkdir failed && { cat evil.txt >&2; exit 1; } || :']
    - ansible.builtin.set_fact:
        duffy_out:
          nodes: \"{{ duffy_in.nodes | map(attribute='data') | map(attribute='provision') | list }}\"
";

#[test]
fn text_of_nodes_and_old_errors_is_not_evaluated() {
    let pool = Pool::new("pool", 0).with(&json!({"fill-level": 1, "mechanism": {"ansible": {
        "extra-vars": {"told": "told.json", "hosts": "{% for node in duffy_in.nodes %}{{ node.data }}{% endfor %}"},
        "provision": {"playbook": "told.yml"}, "deprovision": {"playbook": "uses_node_data.yml"}}}}));
    let settings = json!({"ssh": {"timeout": "1s"}, "tasks": {"attempts": 5}});
    let mut lab = Lab::on_sqlite(&[pool], &settings);
    let mut machine = lab.site.add_machine("127.0.0.1");
    let topdir = lab.site.scratch().join("playbooks");
    std::fs::write(topdir.join("told.yml"), RESULT_FROM_FILE).unwrap();
    std::fs::write(topdir.join("uses_node_data.yml"), USES_NODE_DATA).unwrap();
    let evil = "{{ lookup('pipe', 'touch canary') }}{{ undefined }}";
    std::fs::write(topdir.join("evil.txt"), evil).unwrap();
    machine["note"] = json!([evil]);
    machine[evil] = json!({evil: evil});
    let result = json!({"nodes": [machine]});
    std::fs::write(topdir.join("told.json"), result.to_string()).unwrap();

    let _run = lab.start(&["run"]);
    let (tenant, operator) = (lab.tenant(), lab.admin());
    tenant.wait_filled("pool", 1);
    assert_eq!(tenant.node(&json!(1))["data"]["provision"]["note"][0], evil);
    lab.site
        .duffy()
        .succeed(&["admin", "retire-node", "1", "--reason", evil]);
    let error = wait_for_error(&operator, 1, "Fail once");
    assert!(error.to_string().contains("{{ undefined }}"), "{error}");
    operator.wait_state(&json!(1), "done");
    assert!(topdir.join("failed").exists());
    assert!(!topdir.join("canary").exists());
}

#[test]
fn results_are_matched_node_by_node() {
    let told = json!({"playbook": "told.yml"});
    let pool = Pool::new("pool", 0).with(&json!({"fill-level": 2, "run-parallel": false,
        "mechanism": {"ansible": {"extra-vars": {"told": "{{ name }}.json"},
            "provision": told, "deprovision": told}}}));
    let settings = json!({"ssh": {"timeout": "1s"},
        "tasks": {"attempts": 30, "backoff-min": "1s", "backoff-max": "1s"}});
    let mut lab = Lab::on_sqlite(&[pool], &settings);
    let mut unnamed = lab.site.add_machine("127.0.0.1");
    unnamed.as_object_mut().unwrap().remove("hostname");
    let unnamed = json!({"nodes": [unnamed]});
    let mut named = lab.site.add_machine("127.77.200.200");
    named["hostname"] = json!("named.test");
    let topdir = lab.site.scratch().join("playbooks");
    std::fs::write(topdir.join("told.yml"), RESULT_FROM_FILE).unwrap();
    let set_result = |result: &Value| {
        // A playbook can read the file at any time, so the write is atomic.
        let part = topdir.join("pool.json.part");
        std::fs::write(&part, result.to_string()).unwrap();
        std::fs::rename(part, topdir.join("pool.json")).unwrap();
    };

    // A partial result, without a name: Duffy looks the name up.
    set_result(&unnamed);
    let _run = lab.start(&["run"]);
    let (tenant, operator) = (lab.tenant(), lab.admin());
    // The other node is retried alone.
    let error = wait_for_error(&operator, 2, "provisioning node failed");
    let detail = error["detail"].as_str().unwrap();
    assert!(
        detail.contains("1 came back for 2 nodes") || detail.contains("another active node has"),
        "{detail}"
    );
    let ready = tenant.wait_state(&json!(1), "ready");
    assert_eq!(ready["ipaddr"], "127.0.0.1");
    assert_eq!(ready["hostname"], name_of("127.0.0.1"), "{ready}");

    // The error names an invalid result.
    set_result(&json!("nonsense"));
    wait_for_error(&operator, 2, "duffy_out is a string; make it an object");
    set_result(&unnamed);
    // Duffy refuses the machine of another node, and accepts a new one.
    wait_for_error(&operator, 2, "another active node has");
    set_result(&json!({"nodes": [named]}));
    let ready = tenant.wait_state(&json!(2), "ready");
    assert_eq!(ready["hostname"], "named.test");
    assert!(ready["data"].get("error").is_none(), "{ready}");
    tenant.wait_filled("pool", 2);
}

/// Returns the name that the system resolves for an address, or the address itself.
fn name_of(address: &str) -> String {
    let output = std::process::Command::new("getent")
        .args(["hosts", address])
        .output()
        .unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    let name = line.split_whitespace().nth(1).unwrap_or(address);
    name.to_owned()
}
