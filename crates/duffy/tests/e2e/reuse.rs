//! Registered machines, which are reused.

use serde_json::{Value, json};

use crate::support::{Lab, Pool, SshNode};

#[test]
fn registered_machines_are_reused() {
    let pool = Pool::new("metal", 2).with(&json!({
        "fill-level": 2, "arch": "x86_64",
        "reuse-nodes": {"architecture": "{{ arch }}", "cpus": 4},
    }));
    let settings =
        json!({"tasks": {"attempts": 50}, "ssh": {"timeout": "5s", "ready-timeout": "1s"}});
    let mut lab = Lab::on_postgres(&[pool], &settings);
    let _serve = lab.start(&["serve"]);
    let _worker = lab.start(&["worker"]);
    let (tenant, admin) = (lab.tenant(), lab.admin());

    // There are two machines. One of four registered nodes fits the pool.
    let ips: Vec<String> = lab.site.nodes().map(SshNode::ip).collect();
    let register = |hostname: &str, ipaddr: &str, data: &Value| {
        let node = json!({"hostname": hostname, "ipaddr": ipaddr, "data": data,
            "comment": "in rack 5"});
        admin.call("POST", "nodes", Some(&node)).unwrap()
    };
    let others = [
        (
            "arm",
            "192.0.2.1",
            json!({"architecture": "aarch64", "cpus": 4}),
        ),
        (
            "few",
            "192.0.2.2",
            json!({"architecture": "x86_64", "cpus": 2}),
        ),
        ("bare", "192.0.2.3", json!({})),
    ];
    for (hostname, ipaddr, data) in &others {
        assert_eq!(register(hostname, ipaddr, data).status, 201);
    }
    let wanted = json!({"architecture": "x86_64", "cpus": 4});
    let reply = register("good", &ips[1], &wanted);
    assert_eq!(reply.status, 201, "{}", reply.text);
    let id = reply.json["node"]["id"].clone();
    let forbidden = json!({"hostname": "mine", "ipaddr": "192.0.2.9"});
    let reply = tenant.call("POST", "nodes", Some(&forbidden)).unwrap();
    assert_eq!(reply.status, 403);

    let ready = tenant.wait_state(&id, "ready");
    assert_eq!(register("good2", &ips[1], &wanted).status, 409);
    assert_eq!(
        (&ready["pool"], &ready["ipaddr"]),
        (&json!("metal"), &json!(ips[1]))
    );
    assert_eq!(tenant.get("pools/metal")["pool"]["levels"]["ready"], 1);

    // After a session, the node is reused.
    let key = lab.site.tenant_key().clone();
    let session = tenant.request(&[("metal", 1)]);
    assert_eq!(session["nodes"][0]["id"], id);
    assert!(lab.site.node(&ips[1]).lets_in(&key));
    tenant.retire(&session);
    let ready = tenant.wait_state(&id, "ready");
    assert!(!lab.site.node(&ips[1]).lets_in(&key));
    assert_eq!(ready["comment"], "in rack 5");
    let mut kept = ready["data"].clone();
    kept.as_object_mut().unwrap().remove("provision");
    assert_eq!(kept, wanted, "the data of one use are removed");
    let number = id.to_string();
    let events: Vec<String> = ["provision", "deprovision", "provision"]
        .map(|action| format!("{action} {number}"))
        .to_vec();
    assert_eq!(lab.site.events("metal"), events);

    // If the key cannot be removed, the node is not lent before it is.
    let session = tenant.request(&[("metal", 1)]);
    lab.site.node(&ips[1]).refuse();
    tenant.retire(&session);
    let node = lab.admin().wait("a failure to remove the key", |api| {
        let node = api.node(&id);
        assert_ne!(node["state"], "ready", "{node}");
        match node["data"]["error"]["detail"].as_str() {
            Some(_) => Ok(node),
            None => Err(node.to_string()),
        }
    });
    let detail = node["data"]["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("former tenant's key"), "{detail}");
    let keys = lab.site.node(&ips[1]).authorized_keys();
    assert!(keys.contains(key.public()), "{keys}");
    assert_eq!(tenant.ask(&[("metal", 1)]).unwrap().status, 422);
    lab.site.node(&ips[1]).recover();
    let ready = tenant.wait_state(&id, "ready");
    assert!(!lab.site.node(&ips[1]).lets_in(&key));
    assert!(ready["data"].get("error").is_none(), "{ready}");
    assert!(ready["data"].get("stale_keys").is_none(), "{ready}");

    // The other nodes are unchanged.
    for node in tenant.nodes() {
        if node["id"] != id {
            assert_eq!(
                (&node["state"], &node["pool"]),
                (&json!("unused"), &Value::Null)
            );
        }
    }
    lab.assert_consistent();
}
