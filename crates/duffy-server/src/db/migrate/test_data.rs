//! The rows that `setup-db --test-data` adds: the same as the original's.

use duffy_api::{NodeCreate, NodeState, TenantCreate};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::db::nodes::insert_node;
use crate::db::tenants::{StoredKey, insert_tenant};
use crate::db::{Db, DbResult};

/// Names, SSH keys, and whether they are administrators.
pub const TEST_TENANTS: [(&str, &str, bool); 2] =
    [("admin", "Boo", true), ("tenant", "Boo!", false)];

/// Returns the API key of a test tenant. It is always the same, so that scripts can know it.
pub fn test_api_key(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// Adds tenants and nodes to try things with. `keys` are the stored forms of their API keys, in the order of
/// [`TEST_TENANTS`].
pub async fn insert_test_data(db: &Db, keys: &[StoredKey; 2]) -> DbResult<()> {
    db.transaction(async |mut tx| {
        for ((name, ssh_key, is_admin), api_key) in TEST_TENANTS.into_iter().zip(keys) {
            let tenant = TenantCreate {
                name: name.into(),
                is_admin,
                ssh_key: ssh_key.into(),
                node_quota: None,
                session_lifetime: None,
                session_lifetime_max: None,
            };
            insert_tenant(&mut tx, &tenant, api_key).await?;
        }
        for node in test_nodes() {
            let state = match node.pool {
                Some(_) => NodeState::Ready,
                None => NodeState::Unused,
            };
            insert_node(&mut tx, &node, state).await?;
        }
        Ok(())
    })
    .await
}

fn test_nodes() -> Vec<NodeCreate> {
    let node = |hostname: String, ipaddr: String, pool: Option<String>, data| NodeCreate {
        hostname,
        ipaddr,
        comment: None,
        pool,
        reusable: false,
        data,
    };
    let mut architecture = Map::new();
    architecture.insert("architecture".into(), json!("x86_64"));

    let physical_pools = [
        Some("physical-centos8stream-x86_64"),
        Some("physical-fedora35-x86_64"),
        None,
        None,
    ];
    let mut nodes = Vec::new();
    for (number, pool) in (1..).zip(physical_pools) {
        nodes.push(node(
            format!("node-seamicro-{number}.example.net"),
            format!("192.168.0.{}", 10 + number),
            pool.map(str::to_owned),
            architecture.clone(),
        ));
    }
    for (quantity, flavour, subnet) in [(40, "small", 1), (20, "medium", 2), (10, "large", 3)] {
        for number in 1..=quantity {
            let distro = if number % 2 == 1 {
                "fedora35"
            } else {
                "centos8stream"
            };
            nodes.push(node(
                format!("node-opennebula-{flavour}-{number}.example.net"),
                format!("192.168.{subnet}.{}", 10 + number),
                Some(format!("virtual-{distro}-x86_64-{flavour}")),
                Map::new(),
            ));
        }
    }
    nodes
}
