//! Registers nodes, and finds their SSH servers.

use duffy_api::{Node, NodeCreate, NodeState};
use serde_json::{Map, Value};

use crate::context::Ctx;
use crate::db::nodes::{self, NodeRow};
use crate::db::{DbError, Tx, Unique};
use crate::lifecycle::views;
use crate::nodes::ssh::{Target, read_port};

/// Why a node was not registered.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Active nodes' names are unique.
    #[error("there is an active node with the hostname {0:?} already; it must be unique")]
    HostnameTaken(String),
    /// Active nodes' addresses are unique.
    #[error("there is an active node with the ipaddr {0:?} already; it must be unique")]
    AddressTaken(String),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Registers an unused node.
pub async fn create_node(ctx: &Ctx, create: NodeCreate) -> Result<Node, NodeError> {
    let create = &create;
    let write = async |mut tx: Tx| -> Result<_, NodeError> {
        let row = nodes::insert_node(&mut tx, create, NodeState::Unused).await;
        let row = row.map_err(|error| match error {
            DbError::NotUnique(Unique::NodeHostname) => {
                NodeError::HostnameTaken(create.hostname.clone())
            }
            DbError::NotUnique(Unique::NodeAddress) => {
                NodeError::AddressTaken(create.ipaddr.clone())
            }
            error => error.into(),
        })?;
        // A pool may pick it.
        tx.wake_workers();
        Ok(row)
    };
    let row = ctx.db.transaction(write).await?;
    tracing::info!(node.id = row.id, "node registered");
    Ok(views::node(row, true))
}

/// Returns the address of a node's SSH server, with the port and host keys if its mechanism gave them. `None` without
/// an address.
pub fn ssh_target(node: &NodeRow) -> Option<Target> {
    let provision = node.data.0.get("provision");
    let port = provisioned_ssh_port(&node.data.0);
    let host_keys = match provision.and_then(|provision| provision.get("ssh_host_keys")) {
        Some(Value::String(key)) => vec![key.clone()],
        Some(Value::Array(keys)) => keys
            .iter()
            .filter_map(|key| key.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    let host = node.ipaddr.clone().filter(|host| !host.is_empty())?;
    Some(Target {
        host,
        port,
        host_keys,
        fence: Some(node.fence),
    })
}

/// Returns the port of a node's SSH server, if its mechanism gave one.
pub fn provisioned_ssh_port(data: &Map<String, Value>) -> Option<u16> {
    read_port(data.get("provision")?.get("ssh_port")?)
}
