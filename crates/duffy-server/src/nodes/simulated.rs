//! Simulated nodes: a machine of duffy-sim for each, in this process.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use duffy_sim::Cloud;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::mechanism::{Mechanism, MechanismError, MechanismNode};

/// How long things take, and how often they fail.
#[derive(Debug, Clone, Default)]
pub struct SimulatedSettings {
    /// How long making a machine takes.
    pub provision_delay: Duration,
    /// How long taking it down takes.
    pub deprovision_delay: Duration,
    /// How often making one fails, from 0 to 1.
    pub provision_failure_rate: f64,
    /// How often taking one down fails, from 0 to 1.
    pub deprovision_failure_rate: f64,
}

/// The host name of a machine, of its node and its own name.
pub type NameHost = Arc<dyn Fn(&MechanismNode, &str) -> Result<String, String> + Send + Sync>;

/// See the module.
pub struct SimulatedMechanism {
    cloud: Arc<Cloud>,
    settings: SimulatedSettings,
    name_host: NameHost,
}

impl fmt::Debug for SimulatedMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedMechanism")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl SimulatedMechanism {
    /// Machines of this cloud, which pools may share.
    pub fn new(cloud: Arc<Cloud>, settings: SimulatedSettings, name_host: NameHost) -> Self {
        Self {
            cloud,
            settings,
            name_host,
        }
    }

    async fn make(&self, node: &MechanismNode) -> Result<Value, String> {
        tokio::time::sleep(self.settings.provision_delay).await;
        if happens(self.settings.provision_failure_rate) {
            return Err("simulated failure of provisioning".into());
        }
        let name = machine_name(node.id);
        let hostname = (self.name_host)(node, &name)?;
        let machine = self
            .cloud
            .create_machine(&name)
            .await
            .map_err(|error| error.to_string())?;
        Ok(json!({
            "hostname": hostname,
            "ipaddr": machine.ipaddr.to_string(),
            "ssh_port": machine.ssh_port,
            "ssh_host_keys": [machine.host_key],
        }))
    }

    async fn take_down(&self, node: &MechanismNode) -> Result<Value, String> {
        tokio::time::sleep(self.settings.deprovision_delay).await;
        if happens(self.settings.deprovision_failure_rate) {
            return Err("simulated failure of deprovisioning".into());
        }
        let name = machine_name(node.id);
        self.cloud
            .destroy_machine(&name)
            .await
            .map_err(|error| error.to_string())?;
        Ok(json!({ "id": node.id }))
    }
}

/// The name of a node's machine.
pub fn machine_name(id: i64) -> String {
    format!("node-{id}")
}

/// Where the machines of a pool are kept. `None` when it is not set and there is no home directory.
pub fn simulated_directory(settings: &duffy_config::Simulated) -> Option<PathBuf> {
    settings.directory.clone().or_else(|| {
        let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let state = std::env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(home()?.join(".local/state")))?;
        Some(state.join("duffy/simulated"))
    })
}

fn happens(rate: f64) -> bool {
    rate > 0.0 && rand::random::<f64>() < rate
}

/// The results of all nodes, `null` for one that failed; or the failure, if all did.
fn gather(results: Vec<Result<Value, String>>) -> Result<Vec<Value>, MechanismError> {
    let first_error = results
        .iter()
        .find_map(|result| result.as_ref().err())
        .cloned();
    let worked = results.iter().any(Result::is_ok);
    match first_error {
        Some(detail) if !worked => Err(MechanismError::Failed {
            detail,
            log: String::new(),
        }),
        _ => Ok(results.into_iter().map(Result::unwrap_or_default).collect()),
    }
}

#[async_trait]
impl Mechanism for SimulatedMechanism {
    async fn provision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        let work = join_all(nodes.iter().map(|node| self.make(node)));
        let results = stop.run_until_cancelled(work).await;
        gather(results.ok_or(MechanismError::Stopped)?)
    }

    async fn deprovision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        let work = join_all(nodes.iter().map(|node| self.take_down(node)));
        let results = stop.run_until_cancelled(work).await;
        gather(results.ok_or(MechanismError::Stopped)?)
    }

    fn check(&self) -> Result<(), MechanismError> {
        Ok(())
    }
}
