//! Each check finds what it is there to find, and nothing where all is well.

use std::collections::BTreeMap;
use std::time::Duration;

use duffy_server::clock::Clock;
use serde_json::json;

use super::*;

/// One lent, one ready and full pools; and the clients know what they have.
struct World {
    tables: Tables,
    machines: Vec<Standing>,
    seen: BTreeMap<i64, Seen>,
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

fn good() -> World {
    let mut world = World {
        tables: Tables {
            nodes: Vec::new(),
            sessions: BTreeMap::new(),
        },
        machines: Vec::new(),
        seen: BTreeMap::new(),
    };
    for plan in POOLS {
        for _ in 0..plan.fill_level {
            world.add("ready", plan.name, plan.metal > 0);
        }
    }
    let lent = world.add("deployed", "cloud", false);
    let session = Session {
        tenant: "calm".to_owned(),
        over: false,
        nodes: vec![lent],
    };
    world.tables.sessions.insert(1, session.clone());
    let over = Session {
        over: true,
        ..session
    };
    world.tables.sessions.insert(2, over);
    let seen = |end| Seen {
        tenant: "calm".to_owned(),
        nodes: vec![lent],
        expires_at: Clock.now() + Duration::from_mins(10),
        end,
    };
    world.seen.insert(1, seen(End::No));
    world.seen.insert(2, seen(End::Over));
    let machine = world.machines.last_mut().unwrap();
    machine.tenant_keys = vec!["key of calm".to_owned()];
    world
}

impl World {
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
        self.machines.push(Standing {
            name: format!("{name}-{id}"),
            ipaddr,
            is_dead: false,
            tenant_keys: Vec::new(),
        });
        id
    }

    fn lent(&mut self) -> &mut Node {
        self.tables.nodes.last_mut().unwrap()
    }

    /// What all checks find, by the checks' names.
    fn found(self) -> Vec<&'static str> {
        let tenants = tenants();
        let scene = Scene {
            tables: self.tables,
            machines: self.machines,
            tenants: &tenants,
            seen: self.seen,
        };
        let failing = AFTER_REST
            .iter()
            .filter(|(_, check)| !check(&scene).is_empty());
        failing.map(|(name, _)| *name).collect()
    }
}

/// What is broken, and a word of the name of the check that finds it.
type Case = (fn(&mut World), &'static str);

const CASES: [Case; 17] = [
    (|world| lend_again(world, "greedy"), "two running sessions"),
    (|world| lend_again(world, "calm"), "what clients were told"),
    (
        |world| {
            let mut session = world.tables.sessions[&1].clone();
            session.nodes = vec![1, 2];
            world.tables.sessions.insert(3, session);
        },
        "quota",
    ),
    (
        |world| world.lent().state = String::from("ready"),
        "deployed node",
    ),
    (|world| end(world, 1), "deployed node"),
    (|world| end(world, 1), "what clients were told"),
    (
        |world| {
            world.tables.sessions.insert(3, Session::default());
        },
        "deployed node",
    ),
    (
        |world| world.machines[0].tenant_keys.push("key of calm".to_owned()),
        "no key",
    ),
    (
        |world| world.machines.last_mut().unwrap().tenant_keys.clear(),
        "no key",
    ),
    (
        |world| {
            let machine = world.machines.last_mut().unwrap();
            machine.tenant_keys.push("key of greedy".to_owned());
        },
        "no key",
    ),
    (
        |world| {
            world.add("unused", "metal", true);
            let machine = world.machines.last_mut().unwrap();
            machine.tenant_keys.push("key of greedy".to_owned());
        },
        "no key",
    ),
    (
        |world| world.tables.sessions.get_mut(&2).unwrap().over = false,
        "what clients were told",
    ),
    (
        |world| world.tables.sessions.get_mut(&1).unwrap().nodes = vec![1],
        "what clients were told",
    ),
    (
        |world| {
            world.tables.nodes[0].state = String::from("unused");
        },
        "its level",
    ),
    (
        |world| {
            let id = world.add("failed", "batch", false);
            world.tables.nodes[id as usize - 1].retired = true;
        },
        "rows and machines",
    ),
    (|world| drop(world.machines.pop()), "rows and machines"),
    (
        |world| world.lent().ipaddr = String::from("192.0.2.1"),
        "rows and machines",
    ),
];

fn lend_again(world: &mut World, tenant: &str) {
    let mut session = world.tables.sessions[&1].clone();
    session.tenant = String::from(tenant);
    world.tables.sessions.insert(3, session);
    if tenant == "calm" {
        let other = world.tables.sessions.get_mut(&1).unwrap();
        other.tenant = String::from("greedy");
    }
}

fn end(world: &mut World, id: i64) {
    world.tables.sessions.get_mut(&id).unwrap().over = true;
}

#[test]
fn nothing_is_found_where_all_is_well() {
    assert_eq!(good().found(), [""; 0]);
    // A machine that died is no matter, be it there or gone.
    for gone in [true, false] {
        let mut world = good();
        let machine = world.machines.last_mut().unwrap();
        machine.is_dead = true;
        machine.tenant_keys.clear();
        if gone {
            machine.ipaddr.clear();
        }
        assert_eq!(world.found(), [""; 0]);
    }
    assert!(good().tables.unrest().is_empty());
}

#[test]
fn whatever_is_broken_is_found() {
    for (number, (breaks, name)) in CASES.into_iter().enumerate() {
        let mut world = good();
        breaks(&mut world);
        let found = world.found();
        let right = found.iter().any(|check| check.contains(name));
        assert!(right, "case {number}: {found:?} instead of {name}");
    }
}

#[test]
fn unrest_is_work_that_waits() {
    let changes: [fn(&mut World); 4] = [
        |world| world.lent().state = String::from("deprovisioning"),
        |world| {
            world.lent().state = String::from("failed");
            world.lent().waits = true;
        },
        |world| {
            world.tables.sessions.get_mut(&1).unwrap().tenant = String::from(HASTY);
        },
        |world| world.tables.nodes[0].state = String::from("unused"),
    ];
    for change in changes {
        let mut world = good();
        change(&mut world);
        assert_eq!(
            world.tables.unrest().len(),
            1,
            "{:?}",
            world.tables.unrest()
        );
    }
}
