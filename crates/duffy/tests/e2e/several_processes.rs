//! Several servers and workers on one database.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Api, Lab, Pool, free_port, run_concurrently, start};

const FILL_LEVELS: [(&str, u16); 2] = [("small", 6), ("large", 4)];

/// Reads the pools until `end` is set. Returns the maximum number of ready and provisioning nodes of each pool.
fn watch_levels(api: &Api, end: &AtomicBool) -> [u64; 2] {
    let mut most = [0, 0];
    while !end.load(Ordering::Relaxed) {
        for ((pool, _), most) in FILL_LEVELS.iter().zip(&mut most) {
            let levels = &api.get(&format!("pools/{pool}"))["pool"]["levels"];
            let filled =
                levels["ready"].as_u64().unwrap() + levels["provisioning"].as_u64().unwrap();
            *most = filled.max(*most);
        }
    }
    most
}

/// Sets a flag when it is dropped.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn two_servers_and_two_workers_share_the_work() {
    let pools = FILL_LEVELS.map(|(name, fill_level)| {
        Pool::simulated(name, fill_level, &json!({"provision-delay": "50ms"}))
    });
    let lab = Lab::on_postgres(&pools, &json!({}));
    let other_port = free_port();
    let _serve = lab.start(&["serve"]);
    let _other_serve = lab.start(&["serve", "-p", &other_port.to_string()]);
    // Each worker has its own simulated nodes, and also handles those of the other worker.
    let workers = ["one", "other"].map(|name| {
        let state = lab.site.scratch().join(name);
        start(
            &lab.site.duffy().with_env("XDG_STATE_HOME", state),
            &["worker"],
        )
    });
    let (tenant, other) = (lab.tenant(), lab.tenant_at(other_port));
    for (pool, fill_level) in FILL_LEVELS {
        tenant.wait_filled(pool, fill_level.into());
    }

    let held: Mutex<BTreeSet<String>> = Mutex::default();
    let ids = |session: &Value| -> Vec<String> {
        let nodes = session["nodes"].as_array().unwrap().iter();
        nodes.map(|node| node["id"].to_string()).collect()
    };
    let end = AtomicBool::new(false);
    let (granted, most) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch_levels(&other, &end));
        // Also when a request fails: the scope waits for this thread.
        let end_watching = EndOnDrop(&end);
        let granted = run_concurrently(10, |number| {
            let mut granted = 0;
            for round in 0..8 {
                let (here, there) = match (number + round) % 2 {
                    0 => (&tenant, &other),
                    _ => (&other, &tenant),
                };
                let specs = match (number + round) % 3 {
                    0 => &[("small", 1)][..],
                    1 => &[("large", 1), ("small", 1)],
                    _ => &[("small", 2), ("large", 1)],
                };
                let reply = here.ask(specs).unwrap();
                if reply.status != 201 {
                    assert_eq!(reply.status, 422, "{}", reply.text);
                    continue;
                }
                granted += 1;
                let session = &reply.json["session"];
                for id in ids(session) {
                    let fresh = held.lock().unwrap().insert(id.clone());
                    assert!(fresh, "node {id} is in two sessions");
                }
                there.retire(session);
            }
            granted
        });
        drop(end_watching);
        (granted, watching.join().unwrap())
    });
    assert!(granted.iter().sum::<usize>() >= 10, "{granted:?}");
    for ((pool, fill_level), most) in FILL_LEVELS.into_iter().zip(most) {
        assert!(most <= fill_level.into(), "{pool} had {most} nodes");
        tenant.wait_filled(pool, fill_level.into());
    }
    lab.assert_consistent();
    // No used node is left.
    assert_eq!(
        lab.sql("SELECT count(*) FROM nodes WHERE retired_at IS NULL"),
        "10"
    );
    for worker in &workers {
        assert!(
            worker.log().contains("node ready"),
            "the worker did nothing: {}",
            worker.log()
        );
    }
}
