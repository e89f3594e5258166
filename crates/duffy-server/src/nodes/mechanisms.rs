//! The mechanism of each pool, from the configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duffy_config::{Config, Mechanism as Settings, NodePools, Pool, Simulated};
use duffy_sim::{Cloud, CloudSettings, Faults};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::ansible::{AnsibleMechanism, sweep_workdirs};
use super::mechanism::{MechanismError, MechanismNode};
use super::simulated::{SimulatedMechanism, simulated_directory};
use super::ssh::public_keys;

const NO_DIRECTORY: &str = "mechanism.simulated.directory is not set, and there is no home directory for a default; set it";
const NO_KEY: &str = "no SSH public key of Duffy's own is found to let into simulated nodes; make one with `ssh-keygen -t ed25519`, or set ssh.identity-files";

/// How the machines of a pool's nodes are made and taken down.
#[derive(Debug)]
pub enum Mechanism {
    /// By playbooks.
    Ansible(AnsibleMechanism),
    /// In this process.
    Simulated(SimulatedMechanism),
    /// Not at all: the configuration has no pool of this name.
    Unknown(String),
}

impl Mechanism {
    /// Makes machines for nodes. The results are in the order of the nodes. They are as they came from outside: too
    /// few, too many or nonsense. [`super::mechanism::match_provisioned`] checks them, node by node.
    pub async fn provision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        match self {
            Self::Ansible(ansible) => ansible.provision(nodes, stop).await,
            Self::Simulated(simulated) => simulated.provision(nodes, stop).await,
            Self::Unknown(pool) => Err(pool_not_found(pool)),
        }
    }

    /// Takes machines down. The results name the nodes for which that worked;
    /// [`super::mechanism::match_deprovisioned`] finds them.
    pub async fn deprovision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        match self {
            Self::Ansible(ansible) => ansible.deprovision(nodes, stop).await,
            Self::Simulated(simulated) => simulated.deprovision(nodes, stop).await,
            Self::Unknown(pool) => Err(pool_not_found(pool)),
        }
    }
}

fn pool_not_found(pool: &str) -> MechanismError {
    MechanismError::Setup {
        detail: format!("pool '{pool}' not found; add it to nodepools.concrete"),
    }
}

/// A mechanism, and whether it may run for several nodes of the pool at the same time.
type PoolMechanism = (Arc<Mechanism>, bool);

/// The mechanisms, by pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mechanisms {
    by_pool: Arc<HashMap<String, PoolMechanism>>,
    clouds: Arc<HashMap<PathBuf, Arc<Cloud>>>,
}

/// Why a pool's mechanism cannot work.
#[derive(Debug, thiserror::Error)]
pub enum MechanismsError {
    /// There are none.
    #[error("the configuration has no pools; add some to nodepools.concrete")]
    NoPools,
    /// Something is wrong, or something that the mechanism needs is missing.
    #[error("nodepools.concrete.{pool}: {reason}")]
    Unusable {
        /// The pool's name.
        pool: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl Mechanisms {
    /// Makes the mechanisms of all pools and checks that each has what it needs. Starts
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
        let mut clouds = HashMap::new();
        let mut by_pool = HashMap::new();
        for pool in pools.concrete() {
            let opened = open_mechanism(config, &mut clouds, pool).await;
            let mechanism = opened.map_err(|reason| MechanismsError::Unusable {
                pool: pool.name.clone(),
                reason,
            })?;
            by_pool.insert(pool.name.clone(), (Arc::new(mechanism), pool.run_parallel));
        }
        Ok(Self {
            by_pool: Arc::new(by_pool),
            clouds: Arc::new(clouds),
        })
    }

    /// A pool's mechanism, and whether it may run for several nodes at the same time.
    pub fn get(&self, pool: &str) -> Option<PoolMechanism> {
        self.by_pool.get(pool).cloned()
    }

    /// The number of pools.
    pub fn pools(&self) -> usize {
        self.by_pool.len()
    }

    /// Turns simulated nodes off; they are kept for the next start.
    pub async fn shut_down(&self) {
        for cloud in self.clouds.values() {
            cloud.shutdown().await;
        }
    }
}

async fn open_mechanism(
    config: &Config,
    clouds: &mut HashMap<PathBuf, Arc<Cloud>>,
    pool: &Pool,
) -> Result<Mechanism, String> {
    match &pool.mechanism {
        Settings::Ansible(settings) => {
            let ansible = AnsibleMechanism {
                pool: pool.clone(),
                settings: settings.clone(),
            };
            ansible.check().map_err(|error| error.to_string())?;
            Ok(Mechanism::Ansible(ansible))
        }
        Settings::Simulated(settings) => Ok(Mechanism::Simulated(SimulatedMechanism {
            pool: pool.clone(),
            settings: settings.clone(),
            cloud: open_cloud(config, clouds, settings).await?,
        })),
    }
}

/// Opens the cloud of a directory, unless another pool of this directory has opened it.
async fn open_cloud(
    config: &Config,
    clouds: &mut HashMap<PathBuf, Arc<Cloud>>,
    settings: &Simulated,
) -> Result<Arc<Cloud>, String> {
    let directory = simulated_directory(settings).ok_or(NO_DIRECTORY)?;
    if let Some(cloud) = clouds.get(&directory) {
        return Ok(cloud.clone());
    }
    let admin_keys = public_keys(&config.ssh.identity_files);
    if admin_keys.is_empty() {
        return Err(NO_KEY.to_owned());
    }
    let cloud = Cloud::open(CloudSettings {
        directory: directory.clone(),
        admin_keys,
        faults: ssh_faults(config, &directory),
    })
    .await
    .map_err(|error| error.to_string())?;
    clouds.insert(directory, cloud.clone());
    Ok(cloud)
}

/// The SSH faults of a directory's machines: the worst values of its pools.
fn ssh_faults(config: &Config, directory: &Path) -> Faults {
    let pools = config.nodepools.iter().flat_map(NodePools::concrete);
    let settings = pools.filter_map(|pool| match &pool.mechanism {
        Settings::Simulated(settings) => Some(settings),
        Settings::Ansible(_) => None,
    });
    settings
        .filter(|settings| simulated_directory(settings).as_deref() == Some(directory))
        .fold(Faults::default(), |faults, settings| Faults {
            ssh_delay: faults.ssh_delay.max(settings.ssh_delay),
            ssh_failure_rate: faults.ssh_failure_rate.max(settings.ssh_failure_rate),
        })
}
