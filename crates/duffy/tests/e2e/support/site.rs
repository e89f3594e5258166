//! An installation of Duffy: a configuration, keys, playbooks, and the machines that the playbooks return.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::duffy::Duffy;
use super::key::SshKey;
use super::scratch::Scratch;
use super::sshd::SshNode;
use super::{eventually, tools};

const PLAYBOOKS: [(&str, &str); 3] = [
    ("provision.yml", include_str!("playbooks/provision.yml")),
    ("deprovision.yml", include_str!("playbooks/deprovision.yml")),
    ("machines.sh", include_str!("playbooks/machines.sh")),
];

/// A pool of the configuration. The playbooks of the tests provision it.
#[derive(Debug)]
pub struct Pool {
    name: String,
    machines: u16,
    settings: Value,
}

impl Pool {
    /// Creates a pool with this number of machines, and the same fill level.
    pub fn new(name: &str, machines: u16) -> Self {
        Self {
            name: name.to_owned(),
            machines,
            settings: json!({ "fill-level": machines }),
        }
    }

    /// Creates a pool of simulated nodes with this fill level.
    pub fn simulated(name: &str, fill_level: u16, settings: &Value) -> Self {
        Self::new(name, 0).with(&json!({
            "fill-level": fill_level,
            "mechanism": {"type": "simulated", "ansible": null, "simulated": settings},
        }))
    }

    /// Adds or replaces settings: `fill-level`, `run-parallel`, `reuse-nodes`, `mechanism`.
    pub fn with(mut self, settings: &Value) -> Self {
        merge(&mut self.settings, settings);
        self
    }
}

/// A configured installation. It starts no process of Duffy.
#[derive(Debug)]
pub struct Site {
    scratch: Scratch,
    config: PathBuf,
    service_key: SshKey,
    tenant_key: SshKey,
    nodes: BTreeMap<String, SshNode>,
}

impl Site {
    /// Creates a site with an existing database. Starts an sshd per machine.
    ///
    /// The configuration has `database` and `nodepools`. `settings` are merged into it: `json!({"app": {"port": 8080}})`.
    pub fn new(database_url: &str, pools: &[Pool], settings: &Value) -> Self {
        Self::build(Scratch::new("site"), database_url, pools, settings)
    }

    /// Creates a site for an SQLite database in the site's directory, which does not exist yet.
    pub fn sqlite(pools: &[Pool], settings: &Value) -> Self {
        let scratch = Scratch::new("site");
        let url = format!("sqlite:///{}", scratch.join("duffy.sqlite").display());
        Self::build(scratch, &url, pools, settings)
    }

    fn build(scratch: Scratch, database_url: &str, pools: &[Pool], settings: &Value) -> Self {
        let home = scratch.join("home");
        fs::create_dir_all(home.join(".ssh")).unwrap();
        let service_key = SshKey::generate(&home.join(".ssh/id_ed25519"), "duffy");
        let tenant_key = SshKey::generate(&scratch.join("tenant_key"), "tenant");
        let topdir = scratch.join("playbooks");
        fs::create_dir(&topdir).unwrap();
        for (name, text) in PLAYBOOKS {
            fs::write(topdir.join(name), text).unwrap();
        }

        let config = scratch.join("duffy.yaml");
        let mut site = Self {
            scratch,
            config,
            service_key,
            tenant_key,
            nodes: BTreeMap::new(),
        };
        let mut concrete = Map::new();
        for pool in pools {
            site.start_machines(pool);
            let mut definition = json!({
                "mechanism": {"type": "ansible", "ansible": {
                    "topdir": topdir,
                    "extra-vars": {"machines": site.machine_directory(&pool.name)},
                    "provision": {"playbook": "provision.yml"},
                    "deprovision": {"playbook": "deprovision.yml"},
                }},
            });
            merge(&mut definition, &pool.settings);
            concrete.insert(pool.name.clone(), definition);
        }
        let mut tree = json!({
            "database": {"sqlalchemy": {"sync_url": database_url, "async_url": database_url}},
            "nodepools": {"concrete": concrete},
        });
        // Replaces the ssh_config of the user who runs the tests. Simulated nodes accept only root.
        let ssh_config = site.scratch.join("ssh_config");
        let user = if pools.iter().any(|pool| pool.machines > 0) {
            SshNode::user()
        } else {
            "root".to_owned()
        };
        fs::write(&ssh_config, format!("User {user}\n")).unwrap();
        tree["ssh"] =
            json!({"config-file": ssh_config, "identity-files": [site.service_key.path()]});
        merge(&mut tree, settings);
        // JSON is YAML.
        fs::write(&site.config, format!("{tree:#}\n")).unwrap();
        site
    }

    /// Merges more settings into the configuration, for processes that start later.
    pub fn reconfigure(&mut self, settings: &Value) {
        let mut tree = serde_json::from_slice(&fs::read(&self.config).unwrap()).unwrap();
        merge(&mut tree, settings);
        fs::write(&self.config, format!("{tree:#}\n")).unwrap();
    }

    /// The `duffy` command with the configuration and the home directory of this site, and with `ansible-playbook` in its PATH.
    pub fn duffy(&self) -> Duffy {
        let ansible = tools::ansible_playbook();
        let mut path = vec![ansible.parent().unwrap().to_owned()];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        Duffy::new(&self.scratch)
            .with_config(&self.config)
            .with_env("PATH", std::env::join_paths(path).unwrap())
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The directory of the site, and its processes.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The key of Duffy's user. All machines accept it.
    pub fn service_key(&self) -> &SshKey {
        &self.service_key
    }

    /// The key of a tenant. Machines accept it when Duffy has installed it.
    pub fn tenant_key(&self) -> &SshKey {
        &self.tenant_key
    }

    /// Starts a machine that belongs to no pool. Returns the result of a provisioning playbook for it.
    pub fn add_machine(&mut self, ip: &str) -> Value {
        let node = SshNode::start(ip, &[self.service_key.public()]);
        let result = node.result();
        self.nodes.insert(ip.to_owned(), node);
        let user = SshNode::user();
        fs::write(self.scratch.join("ssh_config"), format!("User {user}\n")).unwrap();
        result
    }

    /// The machine with this address.
    pub fn node(&mut self, ip: &str) -> &mut SshNode {
        self.nodes
            .get_mut(ip)
            .unwrap_or_else(|| panic!("no machine has the address {ip}"))
    }

    /// All machines, by address.
    pub fn nodes(&self) -> impl Iterator<Item = &SshNode> {
        self.nodes.values()
    }

    /// The calls of a pool's playbooks, in order: `provision 7`, `deprovision 7`.
    pub fn events(&self, pool: &str) -> Vec<String> {
        let log = fs::read_to_string(self.machine_directory(pool).join("events.log"));
        log.unwrap_or_default()
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    }

    /// The number of machines of a pool that are in use.
    pub fn taken(&self, pool: &str) -> usize {
        fs::read_dir(self.machine_directory(pool).join("taken"))
            .unwrap()
            .count()
    }

    /// Lets playbooks of this `action` (`provision` or `deprovision`) wait before they return their results.
    pub fn pause(&self, pool: &str, action: &str) {
        fs::write(
            self.machine_directory(pool).join(format!("{action}.pause")),
            "",
        )
        .unwrap();
    }

    /// Waits until a playbook waits because of `pause`.
    pub fn wait_until_paused(&self, pool: &str, action: &str) {
        let paused = self
            .machine_directory(pool)
            .join(format!("{action}.paused"));
        eventually(
            Duration::from_mins(1),
            &format!("a paused playbook ({action} {pool})"),
            || {
                if paused.exists() {
                    Ok(())
                } else {
                    Err(format!("events {:?}", self.events(pool)))
                }
            },
        );
    }

    /// Ends `pause`.
    pub fn resume(&self, pool: &str, action: &str) {
        for suffix in ["pause", "paused"] {
            fs::remove_file(
                self.machine_directory(pool)
                    .join(format!("{action}.{suffix}")),
            )
            .ok();
        }
    }

    /// Lets playbooks of this `action` fail, or succeed again.
    pub fn set_failing(&self, pool: &str, action: &str, failing: bool) {
        let file = self.machine_directory(pool).join(format!("{action}.fail"));
        if failing {
            fs::write(file, "").unwrap();
        } else {
            fs::remove_file(file).ok();
        }
    }

    fn machine_directory(&self, pool: &str) -> PathBuf {
        self.scratch.join("machines").join(pool)
    }

    /// Starts the machines of a pool and writes their results to its directory.
    fn start_machines(&mut self, pool: &Pool) {
        let directory = self.machine_directory(&pool.name);
        for name in ["free", "taken"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        for _ in 0..pool.machines {
            let index = u8::try_from(self.nodes.len()).expect("at most 200 machines");
            let ip = Ipv4Addr::new(127, 77, 0, index + 1).to_string();
            let node = SshNode::start(&ip, &[self.service_key.public()]);
            let file = directory.join("free").join(format!("{}.json", node.name()));
            fs::write(file, format!("{}\n", node.result())).unwrap();
            self.nodes.insert(ip, node);
        }
    }
}

/// Merges mappings key by key and replaces other values. A null removes a key.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}
