//! An installation of Duffy: a configuration, keys, playbooks and the machines that these hand out.

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

/// A pool to be in the configuration, provisioned by the playbooks of the tests.
#[derive(Debug)]
pub struct Pool {
    name: String,
    machines: u16,
    settings: Value,
}

impl Pool {
    /// A pool with so many machines, all of which are to be kept ready.
    pub fn new(name: &str, machines: u16) -> Self {
        Self {
            name: name.to_owned(),
            machines,
            settings: json!({ "fill-level": machines }),
        }
    }

    /// A pool of simulated nodes, so many of which are to be kept ready.
    pub fn simulated(name: &str, fill_level: u16, settings: &Value) -> Self {
        Self::new(name, 0).with(&json!({
            "fill-level": fill_level,
            "mechanism": {"type": "simulated", "ansible": null, "simulated": settings},
        }))
    }

    /// With more settings, or others: `fill-level`, `run-parallel`, `reuse-nodes`, a whole other `mechanism`.
    pub fn with(mut self, settings: &Value) -> Self {
        merge(&mut self.settings, settings);
        self
    }
}

/// A configured installation. Nothing of Duffy runs before a test says so.
#[derive(Debug)]
pub struct Site {
    scratch: Scratch,
    config: PathBuf,
    service_key: SshKey,
    tenant_key: SshKey,
    nodes: BTreeMap<String, SshNode>,
}

impl Site {
    /// A site on a database that is there already. Starts an sshd per machine.
    ///
    /// The configuration has `database` and `nodepools`; all else, and what should differ, comes from `settings`,
    /// merged deeply: `json!({"app": {"port": 8080}})`.
    pub fn new(database_url: &str, pools: &[Pool], settings: &Value) -> Self {
        Self::build(Scratch::new("site"), database_url, pools, settings)
    }

    /// The same on an SQLite database in the site's directory, not made yet.
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
            site.build_machine_room(pool);
            let mut definition = json!({
                "mechanism": {"type": "ansible", "ansible": {
                    "topdir": topdir,
                    "extra-vars": {"machines": site.machine_room(&pool.name)},
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
        // Not ssh_config of who runs the tests. Simulated nodes know nobody but root.
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

    /// Merges more settings into the configuration, for what is started from now on.
    pub fn reconfigure(&mut self, settings: &Value) {
        let mut tree = serde_json::from_slice(&fs::read(&self.config).unwrap()).unwrap();
        merge(&mut tree, settings);
        fs::write(&self.config, format!("{tree:#}\n")).unwrap();
    }

    /// The `duffy` command with this site's configuration, home and playbook runner.
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

    /// The directory of the site, and what runs for it.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The key that Duffy logs in with. All machines know it.
    pub fn service_key(&self) -> &SshKey {
        &self.service_key
    }

    /// A key for a tenant. No machine knows it before Duffy puts it there.
    pub fn tenant_key(&self) -> &SshKey {
        &self.tenant_key
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

    /// What the playbooks of a pool were asked for, in order: `provision 7`, `deprovision 7`.
    pub fn events(&self, pool: &str) -> Vec<String> {
        let log = fs::read_to_string(self.machine_room(pool).join("events.log"));
        log.unwrap_or_default()
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    }

    /// How many machines of a pool are taken.
    pub fn taken(&self, pool: &str) -> usize {
        fs::read_dir(self.machine_room(pool).join("taken"))
            .unwrap()
            .count()
    }

    /// From now on playbooks of this `action` (`provision` or `deprovision`) stop before they tell their result.
    pub fn hold(&self, pool: &str, action: &str) {
        fs::write(self.machine_room(pool).join(format!("{action}.hold")), "").unwrap();
    }

    /// Waits until a playbook stands at the hold.
    pub fn wait_until_held(&self, pool: &str, action: &str) {
        let held = self.machine_room(pool).join(format!("{action}.held"));
        eventually(
            Duration::from_mins(1),
            &format!("a held playbook ({action} {pool})"),
            || {
                if held.exists() {
                    Ok(())
                } else {
                    Err(format!("events {:?}", self.events(pool)))
                }
            },
        );
    }

    /// Lets held playbooks go on, and those to come.
    pub fn release(&self, pool: &str, action: &str) {
        for suffix in ["hold", "held"] {
            fs::remove_file(self.machine_room(pool).join(format!("{action}.{suffix}"))).ok();
        }
    }

    /// Makes playbooks of this `action` fail, or succeed again.
    pub fn set_failing(&self, pool: &str, action: &str, failing: bool) {
        let file = self.machine_room(pool).join(format!("{action}.fail"));
        if failing {
            fs::write(file, "").unwrap();
        } else {
            fs::remove_file(file).ok();
        }
    }

    fn machine_room(&self, pool: &str) -> PathBuf {
        self.scratch.join("machines").join(pool)
    }

    /// Starts the machines of a pool and lists them in its directory.
    fn build_machine_room(&mut self, pool: &Pool) {
        let room = self.machine_room(&pool.name);
        for directory in ["free", "taken"] {
            fs::create_dir_all(room.join(directory)).unwrap();
        }
        for _ in 0..pool.machines {
            let index = u8::try_from(self.nodes.len()).expect("at most 200 machines");
            let ip = Ipv4Addr::new(127, 77, 0, index + 1).to_string();
            let node = SshNode::start(&ip, &[self.service_key.public()]);
            let file = room.join("free").join(format!("{}.json", node.name()));
            fs::write(file, format!("{}\n", node.result())).unwrap();
            self.nodes.insert(ip, node);
        }
    }
}

/// Deep merge: mappings key by key, all else is replaced. A null takes a key away.
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
