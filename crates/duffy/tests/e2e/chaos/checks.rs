//! What must hold after a run, as a list of named checks. `Scene` has all that they look at.

use std::collections::BTreeMap;

use super::base::{Base, Rows};
use super::record::{End, Finding, Seen};
use super::room::Standing;
use super::stage::{HASTY, POOLS, PoolPlan, Tenant};

/// Columns of a node: see `Node`.
const NODES: &str = "SELECT CAST(id AS TEXT), CAST(state AS TEXT), pool, ipaddr, \
    CASE WHEN reusable THEN 'yes' ELSE '' END, CASE WHEN retired_at IS NULL THEN '' ELSE 'yes' END, \
    CASE WHEN retry_at IS NULL THEN '' ELSE 'yes' END, CAST(data AS TEXT) FROM nodes ORDER BY id";
/// Session, tenant, whether it is over, node.
const LENT: &str = "SELECT CAST(sessions.id AS TEXT), tenants.name, \
    CASE WHEN sessions.retired_at IS NULL THEN '' ELSE 'yes' END, CAST(node_id AS TEXT) \
    FROM sessions JOIN tenants ON tenants.id = sessions.tenant_id \
    LEFT JOIN sessions_nodes ON sessions_nodes.session_id = sessions.id ORDER BY sessions.id";

/// A node's row.
#[derive(Debug, Clone)]
pub struct Node {
    pub id: i64,
    pub state: String,
    pub pool: String,
    pub ipaddr: String,
    pub reusable: bool,
    pub retired: bool,
    /// Somebody will do something about it, later.
    pub waits: bool,
    pub data: serde_json::Value,
}

/// A session's row, with its nodes.
#[derive(Debug, Clone, Default)]
pub struct Session {
    pub tenant: String,
    pub over: bool,
    pub nodes: Vec<i64>,
}

/// The database at one moment.
#[derive(Debug, Clone)]
pub struct Tables {
    pub nodes: Vec<Node>,
    pub sessions: BTreeMap<i64, Session>,
}

impl Tables {
    pub fn read(base: &Base) -> Result<Self, String> {
        let nodes = base.ask(NODES)?.iter().map(|row| read_node(row)).collect();
        let mut sessions: BTreeMap<i64, Session> = BTreeMap::new();
        for row in base.ask(LENT)? {
            let session = sessions.entry(row[0].parse().unwrap()).or_default();
            session.tenant.clone_from(&row[1]);
            session.over = !row[2].is_empty();
            session.nodes.extend(row[3].parse::<i64>());
        }
        Ok(Self { nodes, sessions })
    }

    fn running(&self) -> impl Iterator<Item = (i64, &Session)> {
        let running = self.sessions.iter().filter(|(_, session)| !session.over);
        running.map(|(id, session)| (*id, session))
    }

    fn node(&self, id: i64) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// What keeps this from being rest: work that waits, or pools that are not full and could be.
    pub fn unrest(&self) -> Vec<String> {
        let mut unrest = Vec::new();
        for node in self.nodes.iter().filter(|node| !node.retired) {
            let transient = ["provisioning", "contextualizing", "deprovisioning"];
            // Those that were repaired too often are the operator's.
            let in_repair = node.state == "failed" && node.waits;
            if transient.contains(&node.state.as_str()) || in_repair {
                unrest.push(format!("node {} is {}", node.id, node.state));
            }
        }
        for (id, session) in self.running() {
            if session.tenant == HASTY {
                unrest.push(format!("session {id} has not expired"));
            }
        }
        for plan in POOLS {
            let ready = self.ready_of(&plan);
            if ready < usize::from(plan.fill_level) && self.can_be_filled(&plan) {
                unrest.push(format!("pool {} has {ready} ready nodes", plan.name));
            }
        }
        unrest
    }

    fn ready_of(&self, plan: &PoolPlan) -> usize {
        let nodes = self.nodes.iter().filter(|node| !node.retired);
        nodes
            .filter(|node| node.pool == plan.name && node.state == "ready")
            .count()
    }

    /// Pools of new nodes always can; those of registered ones while there are any.
    fn can_be_filled(&self, plan: &PoolPlan) -> bool {
        let unused = |node: &&Node| {
            node.state == "unused" && !node.retired && node.data["class"] == plan.name
        };
        plan.metal == 0 || self.nodes.iter().any(|node| unused(&node))
    }
}

fn read_node(row: &[String]) -> Node {
    Node {
        id: row[0].parse().unwrap(),
        state: row[1].clone(),
        pool: row[2].clone(),
        ipaddr: row[3].clone(),
        reusable: !row[4].is_empty(),
        retired: !row[5].is_empty(),
        waits: !row[6].is_empty(),
        data: serde_json::from_str(&row[7]).unwrap_or_default(),
    }
}

/// All that the checks look at.
pub struct Scene<'a> {
    pub tables: Tables,
    pub machines: Vec<Standing>,
    pub tenants: &'a [Tenant],
    pub seen: BTreeMap<i64, Seen>,
}

impl Scene<'_> {
    /// The tenants' keys on the machine with this address, if one lives there.
    fn keys_at(&self, ipaddr: &str) -> Option<&Vec<String>> {
        let mut machines = self.machines.iter();
        let machine = machines.find(|machine| machine.ipaddr == ipaddr && !machine.is_dead)?;
        Some(&machine.tenant_keys)
    }
}

pub type Check = fn(&Scene<'_>) -> Vec<Finding>;

/// What holds at any moment of a run.
pub const ALWAYS: [(&str, Check); 2] = [
    ("no node is in two running sessions", lent_once),
    ("no tenant has more than its quota", within_quota),
];

/// What holds after rest.
pub const AFTER_REST: [(&str, Check); 7] = [
    ("no node is in two running sessions", lent_once),
    ("no tenant has more than its quota", within_quota),
    ("every deployed node has its session", deployed_in_sessions),
    (
        "ready nodes have no key, deployed ones their tenant's",
        keys_in_place,
    ),
    ("what clients were told is so", as_clients_saw),
    ("every pool is at its level", pools_filled),
    ("rows and machines are the same", machines_known),
];

fn lent_once(scene: &Scene<'_>) -> Vec<Finding> {
    let mut holders: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (id, session) in scene.tables.running() {
        for node in &session.nodes {
            holders.entry(*node).or_default().push(id);
        }
    }
    let twice = holders
        .into_iter()
        .filter(|(_, sessions)| sessions.len() > 1);
    let finding = |(node, sessions): (i64, Vec<i64>)| Finding {
        what: format!("node {node} is in sessions {sessions:?}"),
        nodes: vec![node],
        sessions,
    };
    twice.map(finding).collect()
}

fn within_quota(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for tenant in scene.tenants {
        let own = scene.tables.running();
        let own = own.filter(|(_, session)| session.tenant == tenant.name);
        let (ids, nodes): (Vec<i64>, Vec<usize>) =
            own.map(|(id, session)| (id, session.nodes.len())).unzip();
        let nodes: usize = nodes.iter().sum();
        if nodes > tenant.quota as usize {
            found.push(Finding {
                what: format!("{} has {nodes} nodes of {}", tenant.name, tenant.quota),
                nodes: Vec::new(),
                sessions: ids,
            });
        }
    }
    found
}

fn deployed_in_sessions(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let tables = &scene.tables;
    for node in tables.nodes.iter().filter(|node| node.state == "deployed") {
        let holders = tables.running();
        let holders = holders.filter(|(_, session)| session.nodes.contains(&node.id));
        if holders.count() != 1 {
            let what = format!("node {} is deployed without a session", node.id);
            found.push(Finding::new(what).of_node(node.id));
        }
    }
    for (id, session) in tables.running() {
        for number in &session.nodes {
            let state = tables.node(*number).map(|node| node.state.as_str());
            if state != Some("deployed") {
                let what = format!("node {number} of session {id} is {state:?}");
                found.push(Finding::new(what).of_node(*number).of_session(id));
            }
        }
        if session.nodes.is_empty() {
            let what = format!("session {id} has no nodes");
            found.push(Finding::new(what).of_session(id));
        }
    }
    found
}

fn keys_in_place(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let tables = &scene.tables;
    for node in tables.nodes.iter().filter(|node| !node.retired) {
        let Some(keys) = scene.keys_at(&node.ipaddr) else {
            continue;
        };
        let holder = tables.running();
        let holder = holder
            .filter(|(_, session)| session.nodes.contains(&node.id))
            .find_map(|(_, session)| {
                let mut tenants = scene.tenants.iter();
                tenants.find(|tenant| tenant.name == session.tenant)
            });
        let wanted: Vec<String> = match (node.state.as_str(), holder) {
            ("ready", _) => Vec::new(),
            // Such a node is not lent before its key is off it.
            ("unused", _) if node.data.get("stale_keys").is_none() => Vec::new(),
            ("deployed", Some(holder)) => vec![holder.ssh_key.clone()],
            _ => continue,
        };
        if *keys != wanted {
            let what = format!(
                "node {}, {} at {}, has the keys {keys:?}, not {wanted:?}",
                node.id, node.state, node.ipaddr
            );
            found.push(Finding::new(what).of_node(node.id));
        }
    }
    found
}

fn as_clients_saw(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (id, seen) in &scene.seen {
        let session = scene.tables.sessions.get(id);
        let running = session.is_some_and(|session| !session.over);
        let same = session.is_some_and(|session| {
            let mut nodes = session.nodes.clone();
            nodes.sort_unstable();
            let mut theirs = seen.nodes.clone();
            theirs.sort_unstable();
            session.tenant == seen.tenant && nodes == theirs
        });
        let wrong = if !same {
            "was granted otherwise"
        } else if seen.is_held() && !running {
            "was granted, and is over"
        } else if seen.end == End::Over && running {
            "was retired, and runs"
        } else {
            continue;
        };
        let what = format!("session {id} {wrong}: {seen:?}, now {session:?}");
        let mut finding = Finding::new(what).of_session(*id);
        finding.nodes.clone_from(&seen.nodes);
        found.push(finding);
    }
    found
}

fn pools_filled(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for plan in POOLS {
        let ready = scene.tables.ready_of(&plan);
        let full = ready == usize::from(plan.fill_level);
        // A request that failed gives nodes back whose places are taken by then.
        let more = ready > usize::from(plan.fill_level);
        if !full && !more && scene.tables.can_be_filled(&plan) {
            found.push(Finding::new(format!(
                "pool {} has {ready} ready nodes, not {}",
                plan.name, plan.fill_level
            )));
        }
    }
    found
}

fn machines_known(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let machines = &scene.machines;
    let active = |node: &&Node| !node.retired && !node.reusable;
    // Those that died and are gone are known by name only.
    for machine in machines.iter().filter(|one| !one.ipaddr.is_empty()) {
        // Metal has other names, and stays.
        let Some(id) = machine.name.strip_prefix("node-") else {
            continue;
        };
        let id: i64 = id.parse().unwrap();
        if !scene.tables.node(id).is_some_and(|node| active(&node)) {
            let what = format!("machine {} is nobody's", machine.name);
            found.push(Finding::new(what).of_node(id));
        }
    }
    for node in scene.tables.nodes.iter().filter(active) {
        let lives = ["ready", "deployed"].contains(&node.state.as_str());
        let name = format!("node-{}", node.id);
        let there = machines.iter().any(|machine| {
            machine.name == name && (machine.is_dead || machine.ipaddr == node.ipaddr)
        });
        if lives && !there {
            let what = format!("node {} is {} without a machine", node.id, node.state);
            found.push(Finding::new(what).of_node(node.id));
        }
    }
    found
}

/// The rows of these nodes and sessions, for a report.
pub fn rows_of(base: &Base, findings: &[Finding]) -> Vec<String> {
    let named = |ids: fn(&Finding) -> &Vec<i64>| {
        let mut all: Vec<String> = findings
            .iter()
            .flat_map(ids)
            .map(ToString::to_string)
            .collect();
        all.sort();
        all.dedup();
        all
    };
    let (nodes, sessions) = (named(|one| &one.nodes), named(|one| &one.sessions));
    let mut lines = Vec::new();
    let mut list = |kind: &str, ids: &[String], rows: Result<Rows, String>| match rows {
        Ok(rows) => {
            let wanted = rows.iter().filter(|row| ids.contains(&row[0]));
            lines.extend(wanted.map(|row| format!("{kind} {}", row.join(" | "))));
        }
        Err(error) => lines.push(format!("{kind}: {error}")),
    };
    list("node", &nodes, base.ask(NODE_ROWS));
    list("session", &sessions, base.ask(SESSION_ROWS));
    // By node, and by session: who had what.
    list("lent, by node", &nodes, base.ask(LENT_BY_NODE));
    list("lent, by session", &sessions, base.ask(LENT_BY_SESSION));
    list("event, by node", &nodes, base.ask(EVENTS_BY_NODE));
    list("event, by session", &sessions, base.ask(EVENTS_BY_SESSION));
    lines
}

const NODE_ROWS: &str = "SELECT CAST(id AS TEXT), CAST(state AS TEXT), pool, ipaddr, \
    CAST(state_since AS TEXT), CAST(attempts AS TEXT), lease, CAST(lease_expires_at AS TEXT), \
    CAST(retry_at AS TEXT), CAST(retired_at AS TEXT), CAST(data AS TEXT) FROM nodes ORDER BY nodes.id";
const SESSION_ROWS: &str = "SELECT CAST(id AS TEXT), CAST(tenant_id AS TEXT), \
    CAST(created_at AS TEXT), CAST(expires_at AS TEXT), CAST(retired_at AS TEXT) \
    FROM sessions ORDER BY sessions.id";
const LENT_BY_NODE: &str = "SELECT CAST(node_id AS TEXT), CAST(session_id AS TEXT), pool \
    FROM sessions_nodes ORDER BY session_id";
const LENT_BY_SESSION: &str = "SELECT CAST(session_id AS TEXT), CAST(node_id AS TEXT), pool \
    FROM sessions_nodes ORDER BY node_id";
const EVENTS_BY_NODE: &str = "SELECT CAST(node_id AS TEXT), CAST(created_at AS TEXT), \
    CAST(session_id AS TEXT), cause, from_state, to_state, actor, detail \
    FROM events WHERE node_id IS NOT NULL ORDER BY node_id, id";
const EVENTS_BY_SESSION: &str = "SELECT CAST(session_id AS TEXT), CAST(created_at AS TEXT), \
    CAST(node_id AS TEXT), cause, from_state, to_state, actor, detail \
    FROM events WHERE session_id IS NOT NULL ORDER BY session_id, id";

#[path = "checks_tests.rs"]
mod tests;
