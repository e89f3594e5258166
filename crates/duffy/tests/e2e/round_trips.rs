//! How many round trips to PostgreSQL a request to the web API needs.

use serde_json::{Value, json};

use crate::support::{Lab, Pool, Program, Proxy, http, start};

/// The first requests prepare the statements on each connection, and a connection that was idle is checked: the least
/// number of several requests counts.
const ROUNDS: usize = 6;

/// A server whose connections to the database go through a proxy, and a worker with its own connections.
struct Fixture {
    lab: Lab,
    proxy: Proxy,
    _programs: [Program; 2],
}

impl Fixture {
    fn new() -> Self {
        let pools = [("one", 1), ("two", 2), ("twenty", 20)];
        let pools = pools.map(|(name, level)| Pool::simulated(name, level, &json!({})));
        // The server looks at the database on its own to find nodes to hold connections to.
        let no_hold = json!({"ssh": {"hold": {"enabled": false}}});
        let lab = Lab::on_postgres(&pools, &no_hold);
        let proxy = Proxy::start(lab.postgres.as_ref().unwrap().port());
        let url = format!("postgresql://postgres@127.0.0.1:{}/duffy", proxy.port());
        let config = std::fs::read(lab.site.config()).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config["database"] = json!({"sqlalchemy": {"sync_url": url, "async_url": url}});
        let file = lab.site.scratch().join("through-proxy.yaml");
        std::fs::write(&file, config.to_string()).unwrap();
        let worker = lab.start(&["worker"]);
        let serve = start(&lab.site.duffy().with_config(&file), &["serve"]);
        Self {
            lab,
            proxy,
            _programs: [worker, serve],
        }
    }

    /// Returns the number of round trips of `work`.
    fn count<T>(&self, work: impl FnOnce() -> T) -> (u64, T) {
        let before = self.proxy.round_trips();
        let done = work();
        (self.proxy.round_trips() - before, done)
    }

    fn fewest<T>(&self, work: impl Fn() -> T) -> u64 {
        let rounds = (0..ROUNDS).map(|_| self.count(&work).0);
        rounds.min().unwrap()
    }

    /// Requests sessions like this and retires them. Returns the fewest round trips of both.
    fn lend(&self, specs: &[(&str, u32)]) -> (u64, u64) {
        let tenant = self.lab.tenant();
        let round = |_| {
            for (pool, quantity) in specs {
                tenant.wait_filled(pool, u64::from(*quantity));
            }
            let (requested, session) = self.count(|| tenant.request(specs));
            let (retired, ()) = self.count(|| tenant.retire(&session));
            (requested, retired)
        };
        let (requested, retired): (Vec<_>, Vec<_>) = (0..ROUNDS).map(round).unzip();
        let fewest = |counts: Vec<u64>| counts.into_iter().min().unwrap();
        (fewest(requested), fewest(retired))
    }
}

#[test]
fn the_number_of_nodes_costs_no_round_trips() {
    let fixture = Fixture::new();
    for (pool, quantity) in [("one", 1), ("two", 2), ("twenty", 20)] {
        // Credentials. BEGIN, tenant, session, nodes, reserve, COMMIT. BEGIN, session, deploy, COMMIT.
        // Credentials. BEGIN, session, nodes, release, COMMIT.
        assert_eq!(
            fixture.lend(&[(pool, quantity)]),
            (11, 6),
            "{quantity} nodes"
        );
    }
    // Taking the nodes of another pool.
    assert_eq!(fixture.lend(&[("one", 1), ("two", 2)]), (12, 6));
}

#[test]
fn a_read_needs_one_round_trip_and_credentials_another_one() {
    let fixture = Fixture::new();
    let (tenant, admin) = (fixture.lab.tenant(), fixture.lab.admin());
    tenant.wait_filled("two", 2);
    let session = tenant.request(&[("two", 2)]);
    let session = format!("sessions/{}", session["id"]);
    // The path, whether it is public, and the round trips with them. Those of a pool are not checked.
    for (path, public, expected) in [
        ("pools/two", true, 1),
        ("sessions", true, 2),
        (&*session, false, 2),
    ] {
        for api in [&tenant, &admin] {
            assert_eq!(fixture.fewest(|| api.get(path)), expected, "{path}");
        }
        if public {
            let url = format!("http://127.0.0.1:{}/api/v1/{path}", fixture.lab.port());
            let get = || {
                let reply = http("GET", &url, None, None).unwrap();
                assert_eq!(reply.status, 200, "{path}: {}", reply.text);
            };
            assert_eq!(fixture.fewest(get), 1, "{path}");
        }
    }
}
