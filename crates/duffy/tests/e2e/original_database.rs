//! Migrates a database of the Python original with unfinished work.

use serde_json::json;

use crate::support::{Lab, Pool};

/// The unfinished work of the original. The statements run before the upgrade, on its tables.
const LEFT_BEHIND: [&str; 13] = [
    // The only active session.
    "UPDATE sessions SET expires_at = '2999-01-01 00:00:00.000000' WHERE id = 1",
    // A worker was provisioning a node.
    "UPDATE nodes SET state = 'provisioning', hostname = NULL, ipaddr = NULL, data = '{}' WHERE id = 6",
    // A worker was deprovisioning a node after its session. The original removes the pool.
    "UPDATE nodes SET state = 'deprovisioning', pool = NULL WHERE id = 24",
    "INSERT INTO sessions (id, tenant_id, data, created_at, retired_at) VALUES \
     (104, 2, '{}', '2026-11-22 09:21:46.387604', '2026-11-22 09:25:46.387604')",
    "INSERT INTO sessions_nodes (session_id, node_id, pool, data) VALUES \
     (104, 24, 'physical-centos8stream-x86_64', '{}')",
    // The same, for a node without a session.
    "UPDATE nodes SET state = 'deprovisioning', pool = NULL WHERE id = 26",
    // A session was retired, but its nodes were not deprovisioned.
    "UPDATE nodes SET state = 'deployed' WHERE id IN (7, 8)",
    "INSERT INTO sessions (id, tenant_id, data, created_at, retired_at) VALUES \
     (105, 2, '{}', '2026-11-22 09:21:46.387604', '2026-11-22 09:25:46.387604')",
    "INSERT INTO sessions_nodes (session_id, node_id, pool, data) VALUES \
     (105, 7, 'physical-centos8stream-x86_64', '{}')",
    // The web API was installing a key on a node.
    "UPDATE nodes SET state = 'contextualizing' WHERE id = 25",
    "INSERT INTO sessions (id, tenant_id, data, created_at, expires_at) VALUES \
     (106, 2, '{}', '2026-11-22 09:21:46.387604', '2999-01-01 00:00:00.000000')",
    "INSERT INTO sessions_nodes (session_id, node_id, pool, data) VALUES \
     (106, 25, 'physical-centos8stream-x86_64', '{}')",
    // A pool that is no longer in the configuration.
    "UPDATE nodes SET state = 'deprovisioning', pool = 'gone' WHERE id = 27",
];

fn take_over(on_postgres: bool) {
    let name = "physical-centos8stream-x86_64";
    let pool = Pool::simulated(name, 20, &json!({}));
    let settings = json!({"ssh": {"timeout": "2s"}, "tasks": {"attempts": 2, "concurrency": 20}});
    let lab = Lab::of_original(on_postgres, &[pool], &settings);
    for statement in LEFT_BEHIND {
        lab.sql(statement);
    }
    let duffy = lab.site.duffy();
    let refused = duffy.run(&["run"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("duffy migration upgrade"),
        "{refused:?}"
    );
    duffy.succeed(&["migration", "upgrade", "head"]);

    let run = lab.start(&["run"]);
    let tenant = lab.tenant();
    for done in [4, 5, 7, 8, 24, 25] {
        let node = tenant.wait_state(&json!(done), "done");
        assert!(node["retired_at"].is_string(), "{node}");
    }
    let remade = tenant.wait_state(&json!(6), "ready");
    assert!(remade["ipaddr"].is_string(), "{remade}");
    for (failed, word) in [(26, "by hand"), (27, "nodepools.concrete")] {
        let node = lab.admin().wait_state(&json!(failed), "failed");
        let detail = node["data"]["error"]["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{detail}");
    }
    tenant.wait_levels(name, &json!({"ready": 20, "deployed": 1}));
    // Other nodes are unchanged.
    assert_eq!(tenant.node(&json!(1))["state"], "deployed");
    assert_eq!(tenant.node(&json!(28))["state"], "unused");
    assert_eq!(tenant.node(&json!(9))["hostname"], "node9.lab.test");
    let running = tenant.get("sessions")["sessions"].clone();
    assert_eq!(running.as_array().unwrap().len(), 1, "{running}");
    assert_eq!(running[0]["id"], 1);
    lab.assert_consistent();

    // The pool can lend new nodes, which have machines.
    tenant.retire(&running[0]);
    tenant.wait_state(&json!(1), "done");
    drop(run);
}

#[test]
fn postgresql_database_of_the_original_is_migrated() {
    take_over(true);
}

#[test]
fn sqlite_database_of_the_original_is_migrated() {
    take_over(false);
}
