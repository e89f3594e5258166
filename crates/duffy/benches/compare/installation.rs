//! An installation of Duffy or of the Python original: a configuration, a database, nodes and processes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::load::{self, Access};
use crate::machines::{Machines, PROVISION, ssh_config, with_ssh_directory};
use crate::programs::{find, of_original, of_postgres, output_of};
use crate::support::{Postgres, Program, Scratch, SshKey, eventually, free_port};

/// The name of the pool of real nodes.
pub const METAL: &str = "metal";
/// The name of the pool of simulated nodes, which only ours has.
pub const SIMULATED: &str = "simulated";

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Original,
    Ours,
}

/// What an installation has.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The number of real nodes, and the network of their addresses: 127.`network`.0.0.
    pub metal: usize,
    pub network: u8,
    /// The fill level of the simulated pool.
    pub simulated: usize,
    /// Settings of ours: merged into its configuration.
    pub settings: Value,
}

/// See the module. Its processes end with it.
pub struct Installation {
    pub kind: Kind,
    pub access: Access,
    pub scratch: Scratch,
    /// The URL of its database.
    pub database: String,
    /// The key with which it logs in to its nodes.
    pub service_key: SshKey,
    pub machines: Option<Machines>,
    legacy_port: u16,
    config: PathBuf,
    tree: Value,
}

impl Installation {
    /// Creates an installation with a database of its own in this cluster, and a tenant. It starts no process of Duffy.
    pub fn new(kind: Kind, postgres: &Postgres, redis: u16, plan: &Plan) -> Self {
        let scratch = Scratch::new("bench");
        let ssh = scratch.join("ssh");
        for directory in [&ssh, &scratch.join("home"), &scratch.join("playbooks")] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(scratch.join("playbooks/provision.yml"), PROVISION).unwrap();
        let service_key = SshKey::generate(&ssh.join("id_ed25519"), "duffy");
        let machines = (plan.metal > 0)
            .then(|| Machines::start(&scratch, plan.network, plan.metal, service_key.public()));
        let node_port = machines.as_ref().map_or(22, |machines| machines.port);
        let identity = service_key.path().display().to_string();
        fs::write(ssh.join("config"), ssh_config(node_port, &identity)).unwrap();

        let name = scratch
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let database = postgres.create_database(&name);
        let (port, legacy_port) = (free_port(), free_port());
        let mut tree = configuration(&database, redis, port, legacy_port, &scratch);
        if plan.metal > 0 {
            tree["nodepools"]["concrete"][METAL]["fill-level"] = plan.metal.into();
        }
        if plan.metal == 0 && plan.simulated > 0 {
            tree["nodepools"]["concrete"] = json!({});
        }
        if kind == Kind::Ours {
            tree["ssh"] = json!({"config-file": ssh.join("config"), "identity-files": [identity]});
            if plan.simulated > 0 {
                tree["nodepools"]["concrete"][SIMULATED] = json!({
                    "fill-level": plan.simulated,
                    "mechanism": {"type": "simulated", "simulated": {}},
                });
                // Simulated nodes have their own ports, and accept only root.
                fs::write(ssh.join("config"), "User root\n").unwrap();
            }
            merge(&mut tree, &plan.settings);
        }
        let mut installation = Self {
            kind,
            access: Access {
                port,
                credentials: String::new(),
            },
            config: scratch.join("duffy.yaml"),
            scratch,
            database,
            service_key,
            machines,
            legacy_port,
            tree,
        };
        installation.set_up();
        installation
    }

    /// Creates the tables, the tenant and the nodes, and writes the tenant's key to the configuration.
    fn set_up(&mut self) {
        self.write_config();
        self.output(&["setup-db"]);
        let key = self.service_key.public();
        let line = self.output(&["admin", "create-tenant", "tenant", key]);
        let key = line.rsplit(' ').next().unwrap().to_owned();
        self.access.credentials = format!("tenant:{key}");
        self.tree["client"]["auth"]["key"] = key.into();
        self.write_config();
        if let Some(machines) = &self.machines {
            let rows: Vec<String> = machines
                .addresses
                .iter()
                .map(|ip| format!("('{ip}', '{ip}', 'unused', true, '{{\"kind\": \"{METAL}\"}}')"))
                .collect();
            self.sql(&format!(
                "INSERT INTO nodes (hostname, ipaddr, state, reusable, data) VALUES {}",
                rows.join(", ")
            ));
        }
    }

    fn write_config(&self) {
        // JSON is YAML.
        fs::write(&self.config, format!("{:#}\n", self.tree)).unwrap();
    }

    /// Lets processes that start from now on connect to the database through this port.
    pub fn connect_through(&mut self, port: u16) {
        let name = self.database.rsplit('/').next().unwrap();
        let url = format!("postgresql://postgres@127.0.0.1:{port}/{name}");
        let async_url = url.replace("postgresql:", "postgresql+asyncpg:");
        self.tree["database"]["sqlalchemy"] = json!({"sync_url": url, "async_url": async_url});
        self.write_config();
    }

    /// The program with its configuration and these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.kind {
            Kind::Ours => Command::new(env!("CARGO_BIN_EXE_duffy")),
            Kind::Original => with_ssh_directory(&self.scratch.join("ssh"), &of_original("duffy")),
        };
        let mut path = vec![of_original("python").parent().unwrap().to_owned()];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        command
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", self.scratch.join("home"))
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("RUST_LOG")
            .current_dir(self.scratch.path());
        command.arg("-c").arg(&self.config).args(arguments);
        command
    }

    fn output(&self, arguments: &[&str]) -> String {
        output_of(&mut self.command(arguments))
    }

    /// Starts `serve` and waits for its first reply. Returns the time that this took.
    pub fn serve(&self) -> (Program, Duration) {
        let start = Instant::now();
        let program = Program::start(&self.scratch, "serve", self.command(&["serve"]));
        eventually(
            Duration::from_mins(1),
            "the first reply",
            || match load::get_once(&self.access, "pools") {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}, log {}", program.log())),
            },
        );
        (program, start.elapsed())
    }

    /// Starts the worker. It provisions nodes at once.
    pub fn work(&self) -> Program {
        let arguments: &[&str] = match self.kind {
            Kind::Ours => &["worker"],
            Kind::Original => &["worker", "-B", "-l", "warning"],
        };
        Program::start(&self.scratch, "worker", self.command(arguments))
    }

    /// Starts `serve-legacy` and waits until it accepts connections.
    pub fn serve_legacy(&self) -> Program {
        let command = self.command(&["serve-legacy"]);
        let program = Program::start(&self.scratch, "serve-legacy", command);
        eventually(Duration::from_mins(1), "the old API", || {
            std::net::TcpStream::connect(("127.0.0.1", self.legacy_port))
                .map_err(|error| format!("{error}, log {}", program.log()))
        });
        program
    }

    /// Runs SQL in its database.
    pub fn sql(&self, text: &str) -> String {
        let mut psql = Command::new(of_postgres("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"]);
        output_of(psql.args([&self.database, "-c", text]))
    }

    /// The number of nodes of a pool in a state.
    pub fn count(&self, pool: &str, state: &str) -> usize {
        let count = self.sql(&format!(
            "SELECT count(*) FROM nodes WHERE pool = '{pool}' AND state = '{state}' AND retired_at IS NULL"
        ));
        count.parse().unwrap()
    }

    /// Waits until a pool has this number of ready nodes. Returns false if it does not within this time.
    pub fn wait_ready(&self, pool: &str, count: usize, within: Duration) -> bool {
        let start = Instant::now();
        eventually(within * 2, "ready nodes", || {
            let ready = self.count(pool, "ready");
            if ready >= count || start.elapsed() > within {
                Ok(ready >= count)
            } else {
                Err(ready.to_string())
            }
        })
    }

    /// Waits until there are so many connections to the nodes.
    pub fn wait_held(&self, connections: usize) {
        let port = self.machines.as_ref().expect("nodes").port;
        eventually(Duration::from_mins(2), "held connections", || {
            let table = fs::read_to_string("/proc/net/tcp").unwrap();
            // Columns: number, own address, other address, state. 01 is ESTABLISHED.
            let open = table.lines().skip(1).filter(|line| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                columns[2].ends_with(&format!(":{port:04X}")) && columns[3] == "01"
            });
            let open = open.count();
            (open >= connections).then_some(()).ok_or(open.to_string())
        });
    }

    /// Waits until no process has a transaction open, for at most 20 s.
    pub fn wait_quiet(&self) {
        let start = Instant::now();
        eventually(Duration::from_mins(1), "no transaction", || {
            let open = self.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND pid <> pg_backend_pid() AND state <> 'idle'",
            );
            if open == "0" || start.elapsed() > Duration::from_secs(20) {
                Ok(())
            } else {
                Err(open)
            }
        });
    }

    /// Changes settings of the configuration, for processes that start later.
    pub fn reconfigure(&mut self, settings: &Value) {
        merge(&mut self.tree, settings);
        self.write_config();
    }
}

/// What both programs understand.
fn configuration(database: &str, redis: u16, port: u16, legacy: u16, scratch: &Scratch) -> Value {
    let redis = format!("redis://127.0.0.1:{redis}");
    let async_url = database.replace("postgresql:", "postgresql+asyncpg:");
    json!({
        "client": {
            "url": format!("http://127.0.0.1:{port}/api/v1"),
            "auth": {"name": "tenant", "key": "00000000-0000-4000-8000-000000000000"},
        },
        "app": {"loglevel": "warning", "host": "127.0.0.1", "port": port},
        "metaclient": {
            "loglevel": "warning", "host": "127.0.0.1", "port": legacy,
            "dest": format!("http://127.0.0.1:{port}"),
            "usermap": {}, "poolmap": [{"pool": METAL}],
        },
        "tasks": {
            "celery": {"broker_url": redis, "result_backend": redis},
            "locking": {"url": redis},
            "periodic": {"fill-pools": {"interval": 5}, "expire-sessions": {"interval": 60}},
        },
        "database": {"sqlalchemy": {"sync_url": database, "async_url": async_url}},
        "defaults": {
            "session-lifetime": "6h", "session-lifetime-max": "12h", "node-quota": 100_000,
        },
        "nodepools": {"concrete": {METAL: {
            "fill-level": 60,
            "run-parallel": false,
            "reuse-nodes": {"kind": METAL},
            "mechanism": {"type": "ansible", "ansible": {
                "topdir": scratch.join("playbooks"),
                "provision": {"playbook": "provision.yml"},
            }},
        }}},
    })
}

/// Whether our program has these settings.
pub fn has_settings(scratch: &Scratch, settings: &Value) -> bool {
    let mut tree = configuration("postgresql://127.0.0.1/duffy", 1, 2, 3, scratch);
    merge(&mut tree, settings);
    let file = scratch.join("try.yaml");
    fs::write(&file, format!("{tree:#}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_duffy"));
    command.arg("-c").arg(file).args(["config", "check"]);
    command.output().unwrap().status.success()
}

/// Sends a signal to a program and its children.
pub fn signal_all(program: &Program, signal: Signal) {
    killpg(Pid::from_raw(program.pid()), signal).unwrap();
}

/// Starts Redis, which the original needs. Returns its port.
pub fn start_redis(scratch: &Scratch) -> (Program, u16) {
    let port = free_port();
    let mut command = Command::new(find("redis-server"));
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.arg("--dir").arg(scratch.path());
    let program = Program::start(scratch, "redis", command);
    eventually(Duration::from_secs(20), "Redis", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
    });
    (program, port)
}

/// Merges mappings key by key and replaces other values.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from.clone(),
    }
}
