//! Each check finds its violation, and nothing in valid data.

use std::collections::BTreeMap;
use std::time::Duration;

use duffy_server::clock::Clock;
use serde_json::json;

use super::*;

/// Valid data: full pools, and one deployed node in a session that a client knows.
struct Fixture {
    tables: Tables,
    machines: Vec<MachineState>,
    known_sessions: BTreeMap<i64, KnownSession>,
}

fn tenants() -> Vec<Tenant> {
    let tenant = |name, quota| Tenant {
        name,
        quota,
        api_key: String::new(),
        ssh_key: format!("key of {name}"),
    };
    vec![tenant("calm", 2), tenant("greedy", 2)]
}

fn valid() -> Fixture {
    let mut fixture = Fixture {
        tables: Tables {
            nodes: Vec::new(),
            sessions: BTreeMap::new(),
        },
        machines: Vec::new(),
        known_sessions: BTreeMap::new(),
    };
    for plan in POOLS {
        for _ in 0..plan.fill_level {
            fixture.add("ready", plan.name, plan.registered > 0);
        }
    }
    let deployed = fixture.add("deployed", "cloud", false);
    let session = Session {
        tenant: "calm".to_owned(),
        retired: false,
        nodes: vec![deployed],
    };
    fixture.tables.sessions.insert(1, session.clone());
    let retired = Session {
        retired: true,
        ..session
    };
    fixture.tables.sessions.insert(2, retired);
    let known = |retirement| KnownSession {
        tenant: "calm".to_owned(),
        nodes: vec![deployed],
        expires_at: Clock.now() + Duration::from_mins(10),
        retirement,
    };
    fixture
        .known_sessions
        .insert(1, known(Retirement::NotRequested));
    fixture
        .known_sessions
        .insert(2, known(Retirement::Confirmed));
    let machine = fixture.machines.last_mut().unwrap();
    machine.tenant_keys = vec!["key of calm".to_owned()];
    fixture
}

impl Fixture {
    fn add(&mut self, state: &str, pool: &str, reusable: bool) -> i64 {
        let id = self.tables.nodes.len() as i64 + 1;
        let ipaddr = format!("192.0.2.{id}");
        self.tables.nodes.push(Node {
            id,
            state: state.to_owned(),
            pool: pool.to_owned(),
            ipaddr: ipaddr.clone(),
            reusable,
            retired: false,
            waits: false,
            data: json!({"class": pool}),
        });
        let name = if reusable { "metal" } else { "node" };
        self.machines.push(MachineState {
            name: format!("{name}-{id}"),
            ipaddr,
            is_dead: false,
            destroyed: None,
            tenant_keys: Vec::new(),
        });
        id
    }

    fn deployed(&mut self) -> &mut Node {
        self.tables.nodes.last_mut().unwrap()
    }

    /// Runs all checks. Returns the names of those that find something.
    fn found(self) -> Vec<&'static str> {
        let tenants = tenants();
        let snapshot = Snapshot {
            tables: self.tables,
            machines: self.machines,
            tenants: &tenants,
            known_sessions: self.known_sessions,
        };
        let failing = WHEN_IDLE
            .iter()
            .filter(|(_, check)| !check(&snapshot).is_empty());
        failing.map(|(name, _)| *name).collect()
    }
}

/// A violation, and a part of the name of the check that finds it.
type Case = (fn(&mut Fixture), &'static str);

const CASES: [Case; 18] = [
    (
        |fixture| {
            fixture.deployed().state = String::from("ready");
            let machine = fixture.machines.last_mut().unwrap();
            machine.destroyed = Some(Duration::from_mins(2));
        },
        "no ready node has been dead",
    ),
    (
        |fixture| add_to_session(fixture, "greedy"),
        "two active sessions",
    ),
    (
        |fixture| add_to_session(fixture, "calm"),
        "replies to clients",
    ),
    (
        |fixture| {
            let mut session = fixture.tables.sessions[&1].clone();
            session.nodes = vec![1, 2];
            fixture.tables.sessions.insert(3, session);
        },
        "quota",
    ),
    (
        |fixture| fixture.deployed().state = String::from("ready"),
        "deployed node",
    ),
    (|fixture| retire(fixture, 1), "deployed node"),
    (|fixture| retire(fixture, 1), "replies to clients"),
    (
        |fixture| {
            fixture.tables.sessions.insert(3, Session::default());
        },
        "deployed node",
    ),
    (
        |fixture| {
            fixture.machines[0]
                .tenant_keys
                .push("key of calm".to_owned());
        },
        "no key",
    ),
    (
        |fixture| fixture.machines.last_mut().unwrap().tenant_keys.clear(),
        "no key",
    ),
    (
        |fixture| {
            let machine = fixture.machines.last_mut().unwrap();
            machine.tenant_keys.push("key of greedy".to_owned());
        },
        "no key",
    ),
    (
        |fixture| {
            fixture.add("unused", "metal", true);
            let machine = fixture.machines.last_mut().unwrap();
            machine.tenant_keys.push("key of greedy".to_owned());
        },
        "no key",
    ),
    (
        |fixture| fixture.tables.sessions.get_mut(&2).unwrap().retired = false,
        "replies to clients",
    ),
    (
        |fixture| fixture.tables.sessions.get_mut(&1).unwrap().nodes = vec![1],
        "replies to clients",
    ),
    (
        |fixture| {
            fixture.tables.nodes[0].state = String::from("unused");
        },
        "fill level",
    ),
    (
        |fixture| {
            let id = fixture.add("failed", "batch", false);
            fixture.tables.nodes[id as usize - 1].retired = true;
        },
        "rows and machines",
    ),
    (|fixture| drop(fixture.machines.pop()), "rows and machines"),
    (
        |fixture| fixture.deployed().ipaddr = String::from("192.0.2.1"),
        "rows and machines",
    ),
];

fn add_to_session(fixture: &mut Fixture, tenant: &str) {
    let mut session = fixture.tables.sessions[&1].clone();
    session.tenant = String::from(tenant);
    fixture.tables.sessions.insert(3, session);
    if tenant == "calm" {
        let other = fixture.tables.sessions.get_mut(&1).unwrap();
        other.tenant = String::from("greedy");
    }
}

fn retire(fixture: &mut Fixture, id: i64) {
    fixture.tables.sessions.get_mut(&id).unwrap().retired = true;
}

#[test]
fn valid_data_has_no_findings() {
    assert_eq!(valid().found(), [""; 0]);
    // A machine that died is no finding, whether it still exists or not.
    for gone in [true, false] {
        let mut fixture = valid();
        let machine = fixture.machines.last_mut().unwrap();
        machine.is_dead = true;
        machine.tenant_keys.clear();
        if gone {
            machine.ipaddr.clear();
        }
        assert_eq!(fixture.found(), [""; 0]);
    }
    assert!(valid().tables.pending_work(&[]).is_empty());
}

#[test]
fn every_violation_is_found() {
    for (number, (breaks, name)) in CASES.into_iter().enumerate() {
        let mut fixture = valid();
        breaks(&mut fixture);
        let found = fixture.found();
        let right = found.iter().any(|check| check.contains(name));
        assert!(right, "case {number}: {found:?} instead of {name}");
    }
}

#[test]
fn pending_work_is_listed() {
    let changes: [fn(&mut Fixture); 4] = [
        |fixture| fixture.deployed().state = String::from("deprovisioning"),
        |fixture| {
            fixture.deployed().state = String::from("failed");
            fixture.deployed().waits = true;
        },
        |fixture| {
            fixture.tables.sessions.get_mut(&1).unwrap().tenant = String::from(EXPIRING);
        },
        |fixture| fixture.tables.nodes[0].state = String::from("unused"),
    ];
    for change in changes {
        let mut fixture = valid();
        change(&mut fixture);
        assert_eq!(
            fixture.tables.pending_work(&[]).len(),
            1,
            "{:?}",
            fixture.tables.pending_work(&[])
        );
    }
}
