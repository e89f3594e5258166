//! The named checks of a run. They read a `Snapshot`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::database::{Database, Rows};
use super::environment::{EXPIRING, POOLS, PoolPlan, Tenant};
use super::log::{Finding, KnownSession, Retirement};
use super::machines::MachineState;

/// The columns of `Node`.
const NODES: &str = "SELECT CAST(id AS TEXT), CAST(state AS TEXT), pool, ipaddr, \
    CASE WHEN reusable THEN 'yes' ELSE '' END, CASE WHEN retired_at IS NULL THEN '' ELSE 'yes' END, \
    CASE WHEN retry_at IS NULL THEN '' ELSE 'yes' END, CAST(data AS TEXT) FROM nodes ORDER BY id";
/// The session, its tenant, whether it is retired, and a node.
const SESSIONS: &str = "SELECT CAST(sessions.id AS TEXT), tenants.name, \
    CASE WHEN sessions.retired_at IS NULL THEN '' ELSE 'yes' END, CAST(node_id AS TEXT) \
    FROM sessions JOIN tenants ON tenants.id = sessions.tenant_id \
    LEFT JOIN sessions_nodes ON sessions_nodes.session_id = sessions.id ORDER BY sessions.id";

/// The row of a node.
#[derive(Debug, Clone)]
pub struct Node {
    pub id: i64,
    pub state: String,
    pub pool: String,
    pub ipaddr: String,
    pub reusable: bool,
    pub retired: bool,
    /// It has a time for the next attempt.
    pub waits: bool,
    pub data: serde_json::Value,
}

/// The row of a session, with its nodes.
#[derive(Debug, Clone, Default)]
pub struct Session {
    pub tenant: String,
    pub retired: bool,
    pub nodes: Vec<i64>,
}

/// The database at one moment.
#[derive(Debug, Clone)]
pub struct Tables {
    pub nodes: Vec<Node>,
    pub sessions: BTreeMap<i64, Session>,
}

impl Tables {
    pub fn read(database: &Database) -> Result<Self, String> {
        let nodes = database
            .query(NODES)?
            .iter()
            .map(|row| read_node(row))
            .collect();
        let mut sessions: BTreeMap<i64, Session> = BTreeMap::new();
        for row in database.query(SESSIONS)? {
            let session = sessions.entry(row[0].parse().unwrap()).or_default();
            session.tenant.clone_from(&row[1]);
            session.retired = !row[2].is_empty();
            session.nodes.extend(row[3].parse::<i64>());
        }
        Ok(Self { nodes, sessions })
    }

    fn active(&self) -> impl Iterator<Item = (i64, &Session)> {
        let active = self.sessions.iter().filter(|(_, session)| !session.retired);
        active.map(|(id, session)| (*id, session))
    }

    fn node(&self, id: i64) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Lists the work that is not done: dead nodes that are ready, nodes in transient states, and pools that can be filled.
    pub fn pending_work(&self, machines: &[MachineState]) -> Vec<String> {
        let dead = self.dead_ready_nodes(machines);
        let mut pending_work: Vec<String> = dead
            .map(|(id, _)| format!("node {id} is dead and ready"))
            .collect();
        for node in self.nodes.iter().filter(|node| !node.retired) {
            let transient = ["provisioning", "contextualizing", "deprovisioning"];
            // Nodes that were repaired too often wait for the operator.
            let in_repair = node.state == "failed" && node.waits;
            if transient.contains(&node.state.as_str()) || in_repair {
                pending_work.push(format!("node {} is {}", node.id, node.state));
            }
        }
        for (id, session) in self.active() {
            if session.tenant == EXPIRING {
                pending_work.push(format!("session {id} has not expired"));
            }
        }
        for plan in POOLS {
            let ready = self.ready_of(&plan);
            if ready < usize::from(plan.fill_level) && self.can_be_filled(&plan) {
                pending_work.push(format!("pool {} has {ready} ready nodes", plan.name));
            }
        }
        pending_work
    }

    /// Lists the ready nodes whose machines were destroyed, and how long ago.
    fn dead_ready_nodes(&self, machines: &[MachineState]) -> impl Iterator<Item = (i64, Duration)> {
        let ready = |node: &&Node| node.state == "ready" && !node.retired;
        self.nodes.iter().filter(ready).filter_map(|node| {
            let name = format!("node-{}", node.id);
            let machine = machines.iter().find(|machine| machine.name == name)?;
            Some((node.id, machine.destroyed?))
        })
    }

    fn ready_of(&self, plan: &PoolPlan) -> usize {
        let nodes = self.nodes.iter().filter(|node| !node.retired);
        nodes
            .filter(|node| node.pool == plan.name && node.state == "ready")
            .count()
    }

    /// Whether there are nodes for the pool. Pools without registered nodes create new ones.
    fn can_be_filled(&self, plan: &PoolPlan) -> bool {
        let unused = |node: &&Node| {
            node.state == "unused" && !node.retired && node.data["class"] == plan.name
        };
        plan.registered == 0 || self.nodes.iter().any(|node| unused(&node))
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

/// The input of the checks.
pub struct Snapshot<'a> {
    pub tables: Tables,
    pub machines: Vec<MachineState>,
    pub tenants: &'a [Tenant],
    pub known_sessions: BTreeMap<i64, KnownSession>,
}

impl Snapshot<'_> {
    /// Returns the tenants' keys on the machine with this address, if there is a working one.
    fn keys_at(&self, ipaddr: &str) -> Option<&Vec<String>> {
        let mut machines = self.machines.iter();
        let machine = machines.find(|machine| machine.ipaddr == ipaddr && !machine.is_dead)?;
        Some(&machine.tenant_keys)
    }
}

pub type Check = fn(&Snapshot<'_>) -> Vec<Finding>;

/// The checks that must pass at any time.
pub const ALWAYS: [(&str, Check); 3] = [
    ("no ready node has been dead for long", dead_nodes_leave),
    ("no node is in two active sessions", in_one_session),
    ("no tenant has more than its quota", within_quota),
];

/// The checks that must pass when Duffy is idle.
pub const WHEN_IDLE: [(&str, Check); 8] = [
    ("no ready node has been dead for long", dead_nodes_leave),
    ("no node is in two active sessions", in_one_session),
    ("no tenant has more than its quota", within_quota),
    ("every deployed node has a session", deployed_in_sessions),
    (
        "ready nodes have no key, deployed ones that of their tenant",
        keys_in_place,
    ),
    ("sessions match the replies to clients", match_replies),
    ("every pool has its fill level", pools_filled),
    ("rows and machines match", machines_match),
];

fn in_one_session(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let mut holders: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (id, session) in snapshot.tables.active() {
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

fn within_quota(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for tenant in snapshot.tenants {
        let own = snapshot.tables.active();
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

fn deployed_in_sessions(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let tables = &snapshot.tables;
    for node in tables.nodes.iter().filter(|node| node.state == "deployed") {
        let holders = tables.active();
        let holders = holders.filter(|(_, session)| session.nodes.contains(&node.id));
        if holders.count() != 1 {
            let what = format!("node {} is deployed without a session", node.id);
            found.push(Finding::new(what).of_node(node.id));
        }
    }
    for (id, session) in tables.active() {
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

fn keys_in_place(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let tables = &snapshot.tables;
    for node in tables.nodes.iter().filter(|node| !node.retired) {
        let Some(keys) = snapshot.keys_at(&node.ipaddr) else {
            continue;
        };
        let holder = tables.active();
        let holder = holder
            .filter(|(_, session)| session.nodes.contains(&node.id))
            .find_map(|(_, session)| {
                let mut tenants = snapshot.tenants.iter();
                tenants.find(|tenant| tenant.name == session.tenant)
            });
        let wanted: Vec<String> = match (node.state.as_str(), holder) {
            ("ready", _) => Vec::new(),
            // Duffy removes stale keys before the node becomes ready.
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

fn match_replies(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (id, known) in &snapshot.known_sessions {
        let session = snapshot.tables.sessions.get(id);
        let active = session.is_some_and(|session| !session.retired);
        let same = session.is_some_and(|session| {
            let mut nodes = session.nodes.clone();
            nodes.sort_unstable();
            let mut theirs = known.nodes.clone();
            theirs.sort_unstable();
            session.tenant == known.tenant && nodes == theirs
        });
        let wrong = if !same {
            "differs from the reply that granted it"
        } else if known.must_be_active() && !active {
            "was granted, but is retired"
        } else if known.retirement == Retirement::Confirmed && active {
            "was retired, but is active"
        } else {
            continue;
        };
        let what = format!("session {id} {wrong}: {known:?}, now {session:?}");
        let mut finding = Finding::new(what).of_session(*id);
        finding.nodes.clone_from(&known.nodes);
        found.push(finding);
    }
    found
}

fn pools_filled(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for plan in POOLS {
        let ready = snapshot.tables.ready_of(&plan);
        let full = ready == usize::from(plan.fill_level);
        // A failed request returns nodes that have already been replaced.
        let more = ready > usize::from(plan.fill_level);
        if !full && !more && snapshot.tables.can_be_filled(&plan) {
            found.push(Finding::new(format!(
                "pool {} has {ready} ready nodes, not {}",
                plan.name, plan.fill_level
            )));
        }
    }
    found
}

fn machines_match(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let machines = &snapshot.machines;
    let active = |node: &&Node| !node.retired && !node.reusable;
    // Destroyed machines have only a name.
    for machine in machines.iter().filter(|one| !one.ipaddr.is_empty()) {
        // Registered machines have other names. They are never removed.
        let Some(id) = machine.name.strip_prefix("node-") else {
            continue;
        };
        let id: i64 = id.parse().unwrap();
        if !snapshot.tables.node(id).is_some_and(|node| active(&node)) {
            let what = format!("machine {} has no node", machine.name);
            found.push(Finding::new(what).of_node(id));
        }
    }
    for node in snapshot.tables.nodes.iter().filter(active) {
        let in_use = ["ready", "deployed"].contains(&node.state.as_str());
        let name = format!("node-{}", node.id);
        let exists = machines.iter().any(|machine| {
            machine.name == name && (machine.is_dead || machine.ipaddr == node.ipaddr)
        });
        if in_use && !exists {
            let what = format!("node {} is {} without a machine", node.id, node.state);
            found.push(Finding::new(what).of_node(node.id));
        }
    }
    found
}

/// The longest time until a dead ready node leaves its pool: the interval of the probes, three tries, and the time for which
/// other faults can keep both servers from their work.
const DEAD_LIMIT: Duration = Duration::from_secs(90);

fn dead_nodes_leave(snapshot: &Snapshot<'_>) -> Vec<Finding> {
    let dead = snapshot.tables.dead_ready_nodes(&snapshot.machines);
    dead.filter(|(_, time)| *time > DEAD_LIMIT)
        .map(|(id, time)| {
            let what = format!("node {id} is ready, and its machine is dead for {time:?}");
            Finding::new(what).of_node(id)
        })
        .collect()
}

/// Returns the rows of the nodes and sessions in findings, for a report.
pub fn rows_of(database: &Database, findings: &[Finding]) -> Vec<String> {
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
    list("node", &nodes, database.query(NODE_ROWS));
    list("session", &sessions, database.query(SESSION_ROWS));
    list("session of node", &nodes, database.query(SESSIONS_BY_NODE));
    list(
        "node of session",
        &sessions,
        database.query(NODES_BY_SESSION),
    );
    list("event of node", &nodes, database.query(EVENTS_BY_NODE));
    list(
        "event of session",
        &sessions,
        database.query(EVENTS_BY_SESSION),
    );
    lines
}

const NODE_ROWS: &str = "SELECT CAST(id AS TEXT), CAST(state AS TEXT), pool, ipaddr, \
    CAST(state_since AS TEXT), CAST(attempts AS TEXT), lease, CAST(lease_expires_at AS TEXT), \
    CAST(retry_at AS TEXT), CAST(retired_at AS TEXT), CAST(data AS TEXT) FROM nodes ORDER BY nodes.id";
const SESSION_ROWS: &str = "SELECT CAST(id AS TEXT), CAST(tenant_id AS TEXT), \
    CAST(created_at AS TEXT), CAST(expires_at AS TEXT), CAST(retired_at AS TEXT) \
    FROM sessions ORDER BY sessions.id";
const SESSIONS_BY_NODE: &str = "SELECT CAST(node_id AS TEXT), CAST(session_id AS TEXT), pool \
    FROM sessions_nodes ORDER BY session_id";
const NODES_BY_SESSION: &str = "SELECT CAST(session_id AS TEXT), CAST(node_id AS TEXT), pool \
    FROM sessions_nodes ORDER BY node_id";
const EVENTS_BY_NODE: &str = "SELECT CAST(node_id AS TEXT), CAST(created_at AS TEXT), \
    CAST(session_id AS TEXT), cause, from_state, to_state, actor, detail \
    FROM events WHERE node_id IS NOT NULL ORDER BY node_id, id";
const EVENTS_BY_SESSION: &str = "SELECT CAST(session_id AS TEXT), CAST(created_at AS TEXT), \
    CAST(node_id AS TEXT), cause, from_state, to_state, actor, detail \
    FROM events WHERE session_id IS NOT NULL ORDER BY session_id, id";

#[path = "checks_tests.rs"]
mod tests;
