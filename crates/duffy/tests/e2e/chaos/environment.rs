//! The environment of a run: pools, machines, tenants, a database, and a configuration for each process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use super::database::Database;
use super::machines::Machines;
use super::processes::{ManagedProcess, Processes};
use crate::support::{
    Api, Duffy, Pool, Postgres, Proxy, Scratch, Site, SshKey, free_port, python_program,
};

const MACHINE_CLIENT: &str = include_str!("machine_client.py");
const PLAYBOOKS: [(&str, &str); 2] = [
    ("real-provision.yml", include_str!("provision.yml")),
    ("real-deprovision.yml", include_str!("deprovision.yml")),
];

/// A pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolPlan {
    pub name: &'static str,
    pub fill_level: u16,
    /// The number of registered machines that the pool reuses. With 0, it creates new ones.
    pub registered: u16,
    parallel: bool,
    /// Uses the real ansible-playbook instead of the stand-in.
    real: bool,
}

/// Pools with reuse and batches, and one with the real ansible-playbook, which needs a second of CPU time per run.
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

const fn pool(name: &'static str, fill_level: u16, registered: u16, parallel: bool) -> PoolPlan {
    PoolPlan {
        name,
        fill_level,
        registered,
        parallel,
        real: false,
    }
}

/// Name, quota, and the session lifetime of the tenant whose sessions expire.
const TENANTS: [(&str, u32, Option<&str>); 5] = [
    ("calm", 6, None),
    ("greedy", 5, None),
    ("modest", 2, None),
    ("brisk", 4, None),
    (EXPIRING, 4, Some("4s")),
];

/// The tenant whose sessions expire, after at most ten seconds.
pub const EXPIRING: &str = "hasty";

/// A tenant, with its keys.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub name: &'static str,
    pub quota: u32,
    pub api_key: String,
    pub ssh_key: String,
}

/// See the module.
pub struct Environment {
    pub scratch: Scratch,
    pub site: Site,
    pub database: Database,
    pub postgres: Option<Postgres>,
    pub machines: Machines,
    pub ports: [u16; 2],
}

impl Environment {
    /// Creates the environment with an empty database. It starts no process of Duffy.
    pub fn build(on_postgres: bool, seed: u64, start: Instant) -> Self {
        let scratch = Scratch::new("chaos");
        let pools: Vec<Pool> = POOLS.iter().map(describe_pool).collect();
        let postgres = on_postgres.then(Postgres::start);
        let mut site = match &postgres {
            Some(postgres) => Site::new(&postgres.url(), &pools, &settings()),
            None => Site::sqlite(&pools, &settings()),
        };
        let database = match &postgres {
            Some(postgres) => Database::Postgres(postgres.url()),
            None => Database::Sqlite(site.scratch().join("duffy.sqlite")),
        };
        let machines = Machines::open(&scratch, site.service_key().public(), seed, start);
        configure_playbooks(&mut site, &machines);
        fs::create_dir(site.scratch().join("tmp")).unwrap();
        Self {
            scratch,
            site,
            database,
            postgres,
            machines,
            ports: [free_port(), free_port()],
        }
    }

    /// The directory of the playbooks.
    pub fn playbooks(&self) -> PathBuf {
        self.site.scratch().join("playbooks")
    }

    /// Returns the processes, which do not run yet. Each has its own proxy to the database.
    pub fn processes(&self) -> Processes {
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
            ManagedProcess::new(name, self.duffy(name, proxy.as_ref()), arguments, proxy)
        });
        Processes::new(posts.into())
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
        // Killed workers leave directories here.
        let tmp = self.site.scratch().join("tmp");
        self.site.duffy().with_config(&file).with_env("TMPDIR", tmp)
    }

    /// Creates the tables and an administrator. Returns its API key.
    pub fn set_up_database(&self) -> String {
        let duffy = self.site.duffy();
        duffy.succeed(&["setup-db"]);
        let key = self.site.tenant_key().public();
        let line = duffy.succeed(&["admin", "create-tenant", "--is-admin", "admin", key]);
        line.trim().rsplit(' ').next().unwrap().to_owned()
    }

    /// Creates the tenants and registers the machines.
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
            for number in 1..=pool.registered {
                let machine = self
                    .machines
                    .add_registered(&format!("{}-{number}", pool.name));
                let body = json!({"hostname": format!("{}.test", machine.name),
                    "ipaddr": machine.ipaddr.to_string(), "data": {"class": pool.name}});
                create("nodes", &body);
            }
        }
        tenants
    }
}

/// Settings with short times.
fn settings() -> Value {
    json!({
        "app": {"host": "127.0.0.1"},
        "defaults": {"session-lifetime": "1h", "session-lifetime-max": "12h", "node-quota": 10},
        "tasks": {
            "periodic": {"fill-pools": {"interval": "1s"}, "expire-sessions": {"interval": "1s"}},
            "concurrency": 4, "lease": "5s", "backoff-min": "200ms", "backoff-max": "2s", "attempts": 5,
            "pool-backoff-max": "3s", "repairs": 20, "repair-min": "1s", "repair-max": "4s",
        },
        // Some ready nodes have a held connection, the others are probed.
        "ssh": {
            "timeout": "4s", "connect-timeout": "2s", "ready-timeout": "4s", "probe-interval": "3s",
            "hold": {"max-connections": 6, "keepalive": "1s"},
        },
    })
}

fn describe_pool(plan: &PoolPlan) -> Pool {
    let mut settings = json!({"fill-level": plan.fill_level, "run-parallel": plan.parallel});
    if plan.registered > 0 {
        settings["reuse-nodes"] = json!({"class": plan.name});
    }
    Pool::new(plan.name, 0).with(&settings)
}

/// Configures the playbooks: with the port of the machine service, and with a stand-in for ansible-playbook.
fn configure_playbooks(site: &mut Site, machines: &Machines) {
    let python = python_program("python");
    let client = site.scratch().join("machine_client.py");
    // Without the site packages, Python starts in a third of the time.
    fs::write(
        &client,
        format!("#!{} -IS\n{MACHINE_CLIENT}", python.display()),
    )
    .unwrap();
    fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in PLAYBOOKS {
        fs::write(site.scratch().join("playbooks").join(name), text).unwrap();
    }
    for pool in POOLS {
        let ansible = if pool.real {
            json!({
                "timeout": "15s",
                "extra-vars": {"machine_service": machines.port(), "python": python, "machine_client": client},
                "provision": {"playbook": PLAYBOOKS[0].0},
                "deprovision": {"playbook": PLAYBOOKS[1].0},
            })
        } else {
            json!({
                "timeout": "4s",
                "extra-vars": {"machine_service": machines.port()},
                "ansible-playbook": client,
            })
        };
        site.reconfigure(&json!({"nodepools": {"concrete": {
            pool.name: {"mechanism": {"ansible": ansible}}}}}));
    }
}
