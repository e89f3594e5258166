//! The database crashes, restarts, or becomes unreachable: Duffy recovers without help.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::{Api, Lab, Pool, Proxy, SshEndpoint, eventually, start, wait_for_log};

/// Retires a session. Returns the status of the reply.
fn retire(tenant: &Api, session: &Value) -> u16 {
    let path = format!("sessions/{}", session["id"]);
    let reply = tenant.call("PUT", &path, Some(&json!({"active": false})));
    reply.unwrap().status
}

#[test]
fn duffy_recovers_when_the_database_crashes() {
    let pool = Pool::simulated("pool", 6, &json!({"provision-delay": "50ms"}));
    let mut lab = Lab::on_postgres(&[pool], &json!({}));
    let _serve = lab.start(&["serve"]);
    let _worker = lab.start(&["worker"]);
    let tenant = lab.tenant();
    tenant.wait_filled("pool", 6);
    let kept = tenant.request(&[("pool", 1)]);
    let endpoint = SshEndpoint::of(&tenant.node(&kept["nodes"][0]["id"]));
    let mut postgres = lab.postgres.take().unwrap();

    // Clients request and retire sessions all the time.
    let (end, granted) = (AtomicBool::new(false), AtomicUsize::new(0));
    let lend = || {
        let mut in_doubt = Vec::new();
        while !end.load(Ordering::Relaxed) {
            let reply = tenant.ask(&[("pool", 1)]).unwrap();
            match reply.status {
                201 => granted.fetch_add(1, Ordering::Relaxed),
                // No node is ready, or the database is unavailable.
                422 | 503 => continue,
                _ => panic!("{reply:?}"),
            };
            let session = reply.json["session"].clone();
            match retire(&tenant, &session) {
                200 => {}
                503 => in_doubt.push(session),
                status => panic!("{status}"),
            }
        }
        in_doubt
    };
    let some_are_granted = || {
        let before = granted.load(Ordering::Relaxed);
        eventually(Duration::from_mins(1), "sessions", || {
            let now = granted.load(Ordering::Relaxed);
            (now >= before + 5).then_some(()).ok_or(now.to_string())
        });
    };
    let in_doubt: Vec<Value> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(lend)).collect();
        some_are_granted();
        postgres.restart();
        some_are_granted();
        for _ in 0..2 {
            postgres.stop_immediately();
            postgres.start_again();
            some_are_granted();
        }
        end.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect()
    });
    lab.postgres = Some(postgres);
    // After a 503, clients retry.
    for session in &in_doubt {
        assert!([200, 422].contains(&retire(&tenant, session)), "{session}");
    }
    tenant.wait_levels("pool", &json!({"ready": 6, "deployed": 1}));
    lab.assert_consistent();
    let sessions = tenant.get("sessions")["sessions"].clone();
    assert_eq!(sessions.as_array().unwrap().len(), 1, "{sessions}");
    assert_eq!(sessions[0]["id"], kept["id"]);
    assert!(endpoint.lets_in(lab.site.scratch().path(), lab.site.tenant_key()));

    // Notifications work again, too: polling alone would take longer.
    let session = tenant.request(&[("pool", 2)]);
    tenant.retire(&session);
    tenant.wait_levels("pool", &json!({"ready": 6, "deployed": 1}));
}

#[test]
fn a_worker_without_the_database_stops_its_playbook() {
    let lab = Lab::on_postgres(&[Pool::new("pool", 1)], &json!({}));
    let proxy = Proxy::start(lab.postgres.as_ref().unwrap().port());
    let url = format!("postgresql://postgres@127.0.0.1:{}/duffy", proxy.port());
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(lab.site.config()).unwrap()).unwrap();
    config["database"] = json!({"sqlalchemy": {"sync_url": url, "async_url": url}});
    let file = lab.site.scratch().join("through-proxy.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    lab.site.pause("pool", "provision");
    let cut_off = start(&lab.site.duffy().with_config(&file), &["worker"]);
    lab.site.wait_until_paused("pool", "provision");

    let other = lab.start(&["worker"]);
    proxy.stall();
    // When the lease expires, the other worker continues. By then this worker has stopped.
    wait_for_log(&other, "playbook started");
    assert!(cut_off.log().contains("lease lapsed"), "{}", cut_off.log());
    eventually(Duration::from_secs(10), "one playbook to end", || {
        let mut running = lab.site.scratch().processes();
        running.retain(|line| line.contains("sh machines.sh"));
        (running.len() == 1)
            .then_some(())
            .ok_or_else(|| running.join("\n"))
    });
    lab.site.resume("pool", "provision");
    let _serve = lab.start(&["serve"]);
    let tenant = lab.tenant();
    tenant.wait_filled("pool", 1);
    assert_eq!(lab.site.taken("pool"), 1);

    // The worker can be stopped while it waits for the database.
    cut_off.terminate();
    wait_for_log(&cut_off, "a second signal stops at once");
    cut_off.terminate();
    // It tries to hand its lease back for fifteen seconds, and to close connections for five.
    assert_eq!(cut_off.wait_exit(Duration::from_secs(30)), 0);
    proxy.resume();
    tenant.request(&[("pool", 1)]);
}

/// Slow requests use all connections for longer than a lease, while a playbook and the installation of a key run.
#[test]
fn slow_requests_do_not_block_lease_renewals() {
    let pools = [Pool::new("ready", 1), Pool::new("slow", 1)];
    let long_timeouts = json!({"ssh": {"connect-timeout": "1m", "timeout": "2m",
        "hold": {"enabled": false}}});
    let mut lab = Lab::on_postgres(&pools, &long_timeouts);
    lab.site.pause("slow", "provision");
    let run = lab.start(&["run"]);
    let tenant = lab.tenant();
    tenant.wait_filled("ready", 1);
    lab.site.wait_until_paused("slow", "provision");
    let ready = tenant
        .nodes()
        .into_iter()
        .find(|node| node["pool"] == "ready");
    let ip = ready.unwrap()["ipaddr"].as_str().unwrap().to_owned();
    lab.site.node(&ip).stall();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let url = lab.postgres.as_ref().unwrap().url();
    std::thread::scope(|scope| {
        let session = scope.spawn(|| tenant.ask(&[("ready", 1)]).unwrap());
        let leases = || {
            let leases = lab.sql(
                "SELECT CAST(count(*) AS TEXT), \
                 CAST(CAST(extract(epoch FROM min(lease_expires_at)) AS INTEGER) AS TEXT) \
                 FROM nodes WHERE lease IS NOT NULL",
            );
            let (count, earliest) = leases.split_once('|').unwrap();
            (count.to_owned(), earliest.parse::<u64>().unwrap_or(0))
        };
        let first = eventually(Duration::from_secs(30), "two leases", || {
            let (count, earliest) = leases();
            (count == "2").then_some(earliest).ok_or(count)
        });
        let mut other = runtime.block_on(sqlx::PgConnection::connect(&url)).unwrap();
        let mut locked = runtime.block_on(other.begin()).unwrap();
        let lock = sqlx::query("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE");
        runtime.block_on(lock.execute(&mut *locked)).unwrap();
        let slow: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| tenant.call("GET", "sessions", None)))
            .collect();
        eventually(Duration::from_secs(20), "renewals", || {
            let (count, earliest) = leases();
            let renewed = count == "2" && earliest >= first + 8;
            renewed
                .then_some(())
                .ok_or(format!("{count}, {earliest} after {first}"))
        });
        runtime.block_on(locked.rollback()).unwrap();
        for reply in slow {
            let status = reply.join().unwrap().unwrap().status;
            assert!([200, 503].contains(&status), "{status}");
        }
        lab.site.resume("slow", "provision");
        tenant.wait_filled("slow", 1);
        let log = run.log();
        for lost in ["lease lapsed", "lease lost"] {
            assert!(!log.contains(lost), "{log}");
        }
        lab.site.node(&ip).recover();
        let granted = session.join().unwrap();
        assert_eq!(granted.status, 201, "{granted:?}");
    });
}
