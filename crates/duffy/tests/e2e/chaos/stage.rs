//! What a run is played on: pools, machines, tenants, a database, and the configuration of each process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use super::base::Base;
use super::crew::{Crew, Post};
use super::room::Room;
use crate::support::{
    Api, Duffy, Pool, Postgres, Proxy, Scratch, Site, SshKey, free_port, python_program,
};

const ASK: &str = include_str!("ask.py");
const PLAYBOOKS: [(&str, &str); 2] = [
    ("real-provision.yml", include_str!("provision.yml")),
    ("real-deprovision.yml", include_str!("deprovision.yml")),
];

/// A pool, and how many ready nodes it shall have.
#[derive(Debug, Clone, Copy)]
pub struct PoolPlan {
    pub name: &'static str,
    pub fill_level: u16,
    /// So many registered machines are used again and again; none: each node is made anew.
    pub metal: u16,
    parallel: bool,
    /// Served by the real ansible-playbook, not by its stand-in.
    real: bool,
}

/// Pools with what differs: reuse, batches, and one of the real thing, which takes a second of a core for each run.
pub const POOLS: [PoolPlan; 5] = [
    pool("metal", 4, 7, true),
    pool("rack", 3, 5, false),
    pool("cloud", 5, 0, true),
    pool("batch", 4, 0, false),
    PoolPlan {
        real: true,
        ..pool("real", 1, 0, true)
    },
];

const fn pool(name: &'static str, fill_level: u16, metal: u16, parallel: bool) -> PoolPlan {
    PoolPlan {
        name,
        fill_level,
        metal,
        parallel,
        real: false,
    }
}

/// Name, quota, and how long sessions last, if they are to end by themselves.
const TENANTS: [(&str, u32, Option<&str>); 5] = [
    ("calm", 6, None),
    ("greedy", 5, None),
    ("modest", 2, None),
    ("brisk", 4, None),
    (HASTY, 4, Some("4s")),
];

/// The tenant whose sessions end by themselves, after ten seconds at most.
pub const HASTY: &str = "hasty";

/// Somebody who asks for nodes.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub name: &'static str,
    pub quota: u32,
    pub api_key: String,
    pub ssh_key: String,
}

/// All that a run is played on.
pub struct Stage {
    pub room_scratch: Scratch,
    pub site: Site,
    pub base: Base,
    pub postgres: Option<Postgres>,
    pub room: Room,
    pub ports: [u16; 2],
}

impl Stage {
    /// Builds it, with an empty database. Nothing of Duffy runs.
    pub fn build(on_postgres: bool, seed: u64, start: Instant) -> Self {
        let room_scratch = Scratch::new("chaos");
        let pools: Vec<Pool> = POOLS.iter().map(describe_pool).collect();
        let postgres = on_postgres.then(Postgres::start);
        let mut site = match &postgres {
            Some(postgres) => Site::new(&postgres.url(), &pools, &settings()),
            None => Site::sqlite(&pools, &settings()),
        };
        let base = match &postgres {
            Some(postgres) => Base::Postgres(postgres.url()),
            None => Base::Sqlite(site.scratch().join("duffy.sqlite")),
        };
        let room = Room::open(&room_scratch, site.service_key().public(), seed, start);
        equip(&mut site, &room);
        fs::create_dir(site.scratch().join("tmp")).unwrap();
        Self {
            room_scratch,
            site,
            base,
            postgres,
            room,
            ports: [free_port(), free_port()],
        }
    }

    /// Where the playbooks are, and run.
    pub fn playbooks(&self) -> PathBuf {
        self.site.scratch().join("playbooks")
    }

    /// The processes, none of which runs yet: each has a way of its own to the database.
    pub fn crew(&self) -> Crew {
        let [one, other] = self.ports.map(|port| port.to_string());
        let posts = [
            ("serve-1", vec!["serve".to_owned(), "-p".to_owned(), one]),
            ("serve-2", vec!["serve".to_owned(), "-p".to_owned(), other]),
            ("worker-1", vec!["worker".to_owned()]),
            ("worker-2", vec!["worker".to_owned()]),
        ];
        let posts = posts.map(|(name, mut arguments)| {
            let proxy = self
                .postgres
                .as_ref()
                .map(|postgres| Proxy::start(postgres.port()));
            arguments.splice(0..0, ["-l".to_owned(), "debug".to_owned()]);
            Post::new(name, self.duffy(name, proxy.as_ref()), arguments, proxy)
        });
        Crew::new(posts.into())
    }

    fn duffy(&self, name: &str, proxy: Option<&Proxy>) -> Duffy {
        let mut config: Value =
            serde_json::from_slice(&fs::read(self.site.config()).unwrap()).unwrap();
        if let Some(proxy) = proxy {
            let url = format!("postgresql://postgres@127.0.0.1:{}/duffy", proxy.port());
            config["database"]["sqlalchemy"] = json!({"sync_url": url, "async_url": url});
        }
        let file = self.site.scratch().join(&format!("{name}.yaml"));
        fs::write(&file, format!("{config:#}\n")).unwrap();
        // Killed workers leave directories behind.
        let tmp = self.site.scratch().join("tmp");
        self.site.duffy().with_config(&file).with_env("TMPDIR", tmp)
    }

    /// Makes tables and an administrator; its API key.
    pub fn set_up_database(&self) -> String {
        let duffy = self.site.duffy();
        duffy.succeed(&["setup-db"]);
        let key = self.site.tenant_key().public();
        let line = duffy.succeed(&["admin", "create-tenant", "--is-admin", "admin", key]);
        line.trim().rsplit(' ').next().unwrap().to_owned()
    }

    /// Creates the tenants and registers the metal.
    pub fn populate(&self, admin: &Api) -> Vec<Tenant> {
        let create = |path: &str, body: &Value| {
            let reply = admin.call("POST", path, Some(body)).unwrap();
            assert_eq!(reply.status, 201, "{}", reply.text);
            reply.json
        };
        let mut tenants = Vec::new();
        for (name, quota, lifetime) in TENANTS {
            let file = self.site.scratch().join(&format!("{name}_key"));
            let ssh_key = SshKey::generate(&file, name).public().to_owned();
            let mut body = json!({"name": name, "ssh_key": ssh_key, "node_quota": quota});
            if let Some(lifetime) = lifetime {
                body["session_lifetime"] = json!(lifetime);
                body["session_lifetime_max"] = json!("10s");
            }
            let api_key = create("tenants", &body)["tenant"]["api_key"].clone();
            tenants.push(Tenant {
                name,
                quota,
                api_key: api_key.as_str().unwrap().to_owned(),
                ssh_key,
            });
        }
        for pool in POOLS {
            for number in 1..=pool.metal {
                let machine = self.room.install_metal(&format!("{}-{number}", pool.name));
                let body = json!({"hostname": format!("{}.test", machine.name),
                    "ipaddr": machine.ipaddr.to_string(), "data": {"class": pool.name}});
                create("nodes", &body);
            }
        }
        tenants
    }
}

/// As short as the settings allow.
fn settings() -> Value {
    json!({
        "app": {"host": "127.0.0.1"},
        "defaults": {"session-lifetime": "1h", "session-lifetime-max": "12h", "node-quota": 10},
        "tasks": {
            "periodic": {"fill-pools": {"interval": "1s"}, "expire-sessions": {"interval": "1s"}},
            "concurrency": 4, "lease": "5s", "backoff-min": "200ms", "backoff-max": "2s", "attempts": 5,
            "pool-backoff-max": "3s", "repairs": 20, "repair-min": "1s", "repair-max": "4s",
        },
        "ssh": {"timeout": "4s", "connect-timeout": "2s"},
    })
}

fn describe_pool(plan: &PoolPlan) -> Pool {
    let mut settings = json!({"fill-level": plan.fill_level, "run-parallel": plan.parallel});
    if plan.metal > 0 {
        settings["reuse-nodes"] = json!({"class": plan.name});
    }
    Pool::new(plan.name, 0).with(&settings)
}

/// Tells the pools' playbooks where the machine room is, and puts the stand-in in the place of ansible-playbook.
fn equip(site: &mut Site, room: &Room) {
    let python = python_program("python");
    let ask = site.scratch().join("ask.py");
    // Without the site's packages it starts in a third of the time.
    fs::write(&ask, format!("#!{} -IS\n{ASK}", python.display())).unwrap();
    fs::set_permissions(&ask, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in PLAYBOOKS {
        fs::write(site.scratch().join("playbooks").join(name), text).unwrap();
    }
    for pool in POOLS {
        let ansible = if pool.real {
            json!({
                "timeout": "15s",
                "extra-vars": {"room": room.port(), "python": python, "ask": ask},
                "provision": {"playbook": PLAYBOOKS[0].0},
                "deprovision": {"playbook": PLAYBOOKS[1].0},
            })
        } else {
            json!({
                "timeout": "4s",
                "extra-vars": {"room": room.port()},
                "ansible-playbook": ask,
            })
        };
        site.reconfigure(&json!({"nodepools": {"concrete": {
            pool.name: {"mechanism": {"ansible": ansible}}}}}));
    }
}
