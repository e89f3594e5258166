//! A database of the Python original, left in the middle of its work, is taken over.

use serde_json::json;

use crate::support::{Lab, Pool};

/// What the original leaves when it is stopped at the worst moment; its tables, so before the upgrade.
const LEFT_BEHIND: [&str; 13] = [
    // The one session that still runs.
    "UPDATE sessions SET expires_at = '2999-01-01 00:00:00.000000' WHERE id = 1",
    // Its worker was making a machine.
    "UPDATE nodes SET state = 'provisioning', hostname = NULL, ipaddr = NULL, data = '{}' WHERE id = 6",
    // It was taking one down that had been lent: it forgets the pool.
    "UPDATE nodes SET state = 'deprovisioning', pool = NULL WHERE id = 24",
    "INSERT INTO sessions (id, tenant_id, data, created_at, retired_at) VALUES \
     (104, 2, '{}', '2026-11-22 09:21:46.387604', '2026-11-22 09:25:46.387604')",
    "INSERT INTO sessions_nodes (session_id, node_id, pool, data) VALUES \
     (104, 24, 'physical-centos8stream-x86_64', '{}')",
    // The same, and nobody knows where it came from.
    "UPDATE nodes SET state = 'deprovisioning', pool = NULL WHERE id = 26",
    // A session was retired, and nobody told the worker.
    "UPDATE nodes SET state = 'deployed' WHERE id IN (7, 8)",
    "INSERT INTO sessions (id, tenant_id, data, created_at, retired_at) VALUES \
     (105, 2, '{}', '2026-11-22 09:21:46.387604', '2026-11-22 09:25:46.387604')",
    "INSERT INTO sessions_nodes (session_id, node_id, pool, data) VALUES \
     (105, 7, 'physical-centos8stream-x86_64', '{}')",
    // Its web API was putting a key on a node.
    "UPDATE nodes SET state = 'contextualizing' WHERE id = 25",
    "INSERT INTO sessions (id, tenant_id, data, created_at, expires_at) VALUES \
     (106, 2, '{}', '2026-11-22 09:21:46.387604', '2999-01-01 00:00:00.000000')",
    "INSERT INTO sessions_nodes (session_id, node_id, pool, data) VALUES \
     (106, 25, 'physical-centos8stream-x86_64', '{}')",
    // A pool that the configuration does not have any more.
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
    // What was not in the middle of anything is as it was.
    assert_eq!(tenant.node(&json!(1))["state"], "deployed");
    assert_eq!(tenant.node(&json!(28))["state"], "unused");
    assert_eq!(tenant.node(&json!(9))["hostname"], "node9.lab.test");
    let running = tenant.get("sessions")["sessions"].clone();
    assert_eq!(running.as_array().unwrap().len(), 1, "{running}");
    assert_eq!(running[0]["id"], 1);
    lab.assert_consistent();

    // And it can be lent from; the new nodes have machines behind them, the old ones are old.
    tenant.retire(&running[0]);
    tenant.wait_state(&json!(1), "done");
    drop(run);
}

#[test]
fn postgresql_of_the_original_is_taken_over() {
    take_over(true);
}

#[test]
fn sqlite_of_the_original_is_taken_over() {
    take_over(false);
}
