//! The mechanism of each pool, from the configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duffy_config::{Ansible, Config, Mechanism as Settings, Pool, Simulated};
use duffy_sim::{Cloud, CloudSettings, Faults, SimError};
use serde_json::{Map, Value, json};

use crate::nodes::ansible::{
    AnsibleMechanism, AnsibleSettings, Playbook, PlaybookKind, sweep_workdirs,
};
use crate::nodes::mechanism::{Mechanism, MechanismError};
use crate::nodes::simulated::{SimulatedMechanism, SimulatedSettings, simulated_directory};
use crate::nodes::ssh::home_directory;

/// A mechanism, and whether it may run for several nodes of the pool at the same time.
type PoolMechanism = (Arc<dyn Mechanism>, bool);

/// The mechanisms, by pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mechanisms {
    by_pool: Arc<HashMap<String, PoolMechanism>>,
    clouds: Arc<Vec<Arc<Cloud>>>,
}

/// Why a pool's mechanism cannot work.
#[derive(Debug, thiserror::Error)]
pub enum MechanismsError {
    /// There are none.
    #[error("the configuration has no pools; add some to nodepools.concrete")]
    NoPools,
    /// Something that it needs is missing.
    #[error("nodepools.concrete.{pool}: {cause}")]
    Check {
        /// The pool's name.
        pool: String,
        /// What is missing.
        cause: MechanismError,
    },
    /// Simulated nodes cannot run.
    #[error("nodepools.concrete.{pool}: {cause}")]
    Simulated {
        /// The pool's name.
        pool: String,
        /// Why.
        cause: SimError,
    },
    /// Nowhere to keep simulated nodes.
    #[error(
        "nodepools.concrete.{pool}.mechanism.simulated.directory is not set, and there is no home directory for a default; set it"
    )]
    NoDirectory {
        /// The pool's name.
        pool: String,
    },
    /// Duffy could not log in to simulated nodes.
    #[error(
        "nodepools.concrete.{pool}: no SSH public key of Duffy's own is found to let into simulated nodes; make one with `ssh-keygen -t ed25519`, or set ssh.identity-files"
    )]
    NoKey {
        /// The pool's name.
        pool: String,
    },
}

impl Mechanisms {
    /// Makes the mechanisms of all pools and checks that each has what it needs. Turns on
    /// simulated nodes. Removes what killed workers have left of playbook runs.
    pub async fn open(config: &Config) -> Result<Self, MechanismsError> {
        let pools = config.nodepools.as_ref().ok_or(MechanismsError::NoPools)?;
        let swept = sweep_workdirs(&std::env::temp_dir());
        if swept > 0 {
            tracing::info!(
                swept,
                "removed directories that playbook runs of killed workers left"
            );
        }
        let mut clouds = Clouds {
            config,
            open: HashMap::new(),
        };
        let mut by_pool = HashMap::new();
        for pool in pools.concrete() {
            let mechanism: Arc<dyn Mechanism> = match &pool.mechanism {
                Settings::Ansible(settings) => Arc::new(ansible(pool, settings)),
                Settings::Simulated(settings) => {
                    let cloud = clouds.open(pool, settings).await?;
                    Arc::new(simulated(pool, settings, cloud))
                }
            };
            mechanism.check().map_err(|cause| MechanismsError::Check {
                pool: pool.name.clone(),
                cause,
            })?;
            by_pool.insert(pool.name.clone(), (mechanism, pool.run_parallel));
        }
        let clouds = clouds.open.into_values().collect();
        Ok(Self {
            by_pool: Arc::new(by_pool),
            clouds: Arc::new(clouds),
        })
    }

    /// A pool's mechanism, and whether it may run for several nodes at the same time.
    pub fn get(&self, pool: &str) -> Option<PoolMechanism> {
        self.by_pool.get(pool).cloned()
    }

    /// How many pools there are.
    pub fn len(&self) -> usize {
        self.by_pool.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_pool.is_empty()
    }

    /// Turns simulated nodes off; they are kept for the next start.
    pub async fn shut_down(&self) {
        for cloud in self.clouds.iter() {
            cloud.shutdown().await;
        }
    }
}

fn ansible(pool: &Pool, settings: &Ansible) -> AnsibleMechanism {
    let playbook = |playbook: &Option<duffy_config::Playbook>| {
        playbook.as_ref().map(|playbook| Playbook {
            playbook: playbook.playbook.clone(),
        })
    };
    let ansible_settings = AnsibleSettings {
        program: settings.ansible_playbook.clone(),
        topdir: settings.topdir.clone(),
        provision: playbook(&settings.provision),
        deprovision: playbook(&settings.deprovision),
        timeout: settings.timeout,
    };
    let (pool, settings) = (pool.clone(), settings.clone());
    let render = move |kind, overrides: &Map<String, Value>| {
        let playbook = match kind {
            PlaybookKind::Provision => &settings.provision,
            PlaybookKind::Deprovision => &settings.deprovision,
        };
        let vars = match playbook {
            Some(playbook) => settings.extra_vars_for(playbook),
            None => settings.extra_vars.clone(),
        };
        pool.render_vars(&vars, overrides)
            .map_err(|error| error.to_string())
    };
    AnsibleMechanism::new(ansible_settings, Arc::new(render))
}

fn simulated(pool: &Pool, settings: &Simulated, cloud: Arc<Cloud>) -> SimulatedMechanism {
    let simulated_settings = SimulatedSettings {
        provision_delay: settings.provision_delay,
        deprovision_delay: settings.deprovision_delay,
        provision_failure_rate: settings.provision_failure_rate,
        deprovision_failure_rate: settings.deprovision_failure_rate,
    };
    let (pool, hostname) = (pool.clone(), settings.hostname.clone());
    SimulatedMechanism::new(
        cloud,
        simulated_settings,
        Arc::new(move |node, machine| match &hostname {
            None => Ok(format!("{machine}.simulated")),
            Some(template) => {
                let overrides = json!({ "id": node.id, "machine": machine });
                let overrides = overrides.as_object().cloned().unwrap_or_default();
                pool.render(template, &overrides)
                    .map_err(|error| error.to_string())
            }
        }),
    )
}

/// One cloud for each directory, shared by the pools that use it.
struct Clouds<'a> {
    config: &'a Config,
    open: HashMap<PathBuf, Arc<Cloud>>,
}

impl Clouds<'_> {
    async fn open(
        &mut self,
        pool: &Pool,
        settings: &Simulated,
    ) -> Result<Arc<Cloud>, MechanismsError> {
        let name = || pool.name.clone();
        let directory = simulated_directory(settings)
            .ok_or_else(|| MechanismsError::NoDirectory { pool: name() })?;
        if let Some(cloud) = self.open.get(&directory) {
            return Ok(cloud.clone());
        }
        let admin_keys = public_keys(&self.config.ssh.identity_files);
        if admin_keys.is_empty() {
            return Err(MechanismsError::NoKey { pool: name() });
        }
        let faults = self.ssh_faults(&directory);
        let cloud = Cloud::open(CloudSettings {
            directory: directory.clone(),
            admin_keys,
            faults,
        })
        .await
        .map_err(|cause| MechanismsError::Simulated {
            pool: name(),
            cause,
        })?;
        self.open.insert(directory, cloud.clone());
        Ok(cloud)
    }

    /// Machines of a directory share them: the worst of its pools.
    fn ssh_faults(&self, directory: &Path) -> Faults {
        let pools = self
            .config
            .nodepools
            .iter()
            .flat_map(duffy_config::NodePools::concrete);
        let settings = pools.filter_map(|pool| match &pool.mechanism {
            Settings::Simulated(settings) => Some(settings),
            Settings::Ansible(_) => None,
        });
        let own =
            |settings: &&Simulated| simulated_directory(settings).as_deref() == Some(directory);
        settings
            .filter(own)
            .fold(Faults::default(), |faults, settings| Faults {
                ssh_delay: faults.ssh_delay.max(settings.ssh_delay),
                ssh_failure_rate: faults.ssh_failure_rate.max(settings.ssh_failure_rate),
            })
    }
}

/// Duffy's own public keys: of the configured identities, or of the usual ones.
fn public_keys(identity_files: &[PathBuf]) -> Vec<String> {
    let usual = || {
        // Where SSH itself looks, which is not always below `$HOME`.
        let ssh = home_directory().ok().map(|home| home.join(".ssh"));
        let names = ["id_ed25519", "id_ecdsa", "id_rsa"];
        ssh.into_iter()
            .flat_map(move |ssh| names.map(|name| ssh.join(name)))
            .collect()
    };
    let identities: Vec<PathBuf> = if identity_files.is_empty() {
        usual()
    } else {
        identity_files.to_vec()
    };
    let public = identities.into_iter().map(|path| {
        let mut name = path.into_os_string();
        name.push(".pub");
        PathBuf::from(name)
    });
    public
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .filter(|key| !key.is_empty())
        .collect()
}
