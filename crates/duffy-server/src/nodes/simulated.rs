//! Simulated nodes: a machine of duffy-sim for each, in this process.

use std::path::PathBuf;
use std::sync::Arc;

use duffy_config::{Pool, Simulated};
use duffy_sim::Cloud;
use futures::future::join_all;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::mechanism::{MechanismError, MechanismNode};

/// The mechanism `simulated`.
#[derive(Debug)]
pub struct SimulatedMechanism {
    /// Its values can be used in the template of the host name.
    pub pool: Pool,
    /// Durations, rates of failure, and the template of the host name.
    pub settings: Simulated,
    /// Makes the machines; several pools may share it.
    pub cloud: Arc<Cloud>,
}

impl SimulatedMechanism {
    /// Makes a machine for each node. See [`super::mechanisms::Mechanism::provision`].
    pub async fn provision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        gather(nodes.iter().map(|node| self.make(node)), stop).await
    }

    /// Takes the nodes' machines down. See [`super::mechanisms::Mechanism::deprovision`].
    pub async fn deprovision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        gather(nodes.iter().map(|node| self.take_down(node)), stop).await
    }

    async fn make(&self, node: &MechanismNode) -> Result<Value, String> {
        tokio::time::sleep(self.settings.provision_delay).await;
        if happens(self.settings.provision_failure_rate) {
            return Err("simulated failure of provisioning".into());
        }
        let name = machine_name(node.id);
        let hostname = self.hostname(node, &name)?;
        let made = self.cloud.create_machine(&name).await;
        let machine = made.map_err(|error| error.to_string())?;
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
        let removed = self.cloud.destroy_machine(&machine_name(node.id)).await;
        removed.map_err(|error| error.to_string())?;
        Ok(json!({ "id": node.id }))
    }

    fn hostname(&self, node: &MechanismNode, machine: &str) -> Result<String, String> {
        let Some(template) = &self.settings.hostname else {
            return Ok(format!("{machine}.simulated"));
        };
        let vars = [("id", json!(node.id)), ("machine", json!(machine))];
        let vars = Map::from_iter(vars.map(|(name, value)| (name.to_owned(), value)));
        let rendered = self.pool.render(template, &vars);
        rendered.map_err(|error| error.to_string())
    }
}

/// The name of a node's machine.
pub fn machine_name(id: i64) -> String {
    format!("node-{id}")
}

/// Where the machines of a pool are kept. `None` if it is not set and there is no home directory.
pub fn simulated_directory(settings: &Simulated) -> Option<PathBuf> {
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

/// Does the work on all nodes at the same time. Returns all results, `null` for a node that failed; or the first
/// failure, if all nodes failed.
async fn gather(
    work: impl Iterator<Item = impl Future<Output = Result<Value, String>>>,
    stop: &CancellationToken,
) -> Result<Vec<Value>, MechanismError> {
    let results = stop.run_until_cancelled(join_all(work)).await;
    let results = results.ok_or(MechanismError::Stopped)?;
    if results.iter().all(Result::is_err)
        && let Some(Err(detail)) = results.first()
    {
        return Err(MechanismError::Failed {
            detail: detail.clone(),
            log: String::new(),
        });
    }
    Ok(results.into_iter().map(Result::unwrap_or_default).collect())
}
