//! Snapshots, and what is wrong with each.

use chrono::{DateTime, TimeZone, Utc};
use serde_json::json;

use super::*;
use crate::db::JsonObject;
use crate::db::nodes::State;
use crate::db::sessions::{SessionNodeRow, SessionRow};

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp(now() - TimeDelta::seconds(seconds))
}

fn node(id: i64, state: NodeState, since: i64) -> NodeRow {
    NodeRow {
        id,
        hostname: None,
        ipaddr: None,
        state: State(state),
        comment: None,
        pool: Some("p".into()),
        reusable: false,
        data: JsonObject::default(),
        created_at: ago(since),
        retired_at: None,
        attempts: 0,
        fence: 0,
        repairs: 0,
        held_at: None,
        retry_at: None,
        state_since: Some(ago(since)),
        lease_expires_at: None,
    }
}

fn session(id: i64, tenant_id: i64) -> SessionRow {
    SessionRow {
        id,
        tenant_id,
        expires_at: None,
        data: JsonObject::default(),
        created_at: ago(10),
        retired_at: None,
    }
}

fn used(session_id: i64, node: NodeRow) -> SessionNodeRow {
    SessionNodeRow {
        session_id,
        session_data: JsonObject::default(),
        node,
    }
}

fn tenant(id: i64) -> TenantRow {
    TenantRow {
        id,
        name: format!("t{id}"),
        is_admin: false,
        ssh_key: String::new(),
        api_key: String::new(),
        api_key_digest: None,
        node_quota: None,
        session_lifetime: None,
        session_lifetime_max: None,
        created_at: ago(10),
        retired_at: None,
    }
}

fn pool_state(retry_in: i64) -> PoolStateRow {
    PoolStateRow {
        pool: "p".into(),
        work: State(NodeState::Provisioning),
        failures: 4,
        retry_at: Some(ago(-retry_in)),
        failed_at: None,
        detail: Some("no more room".into()),
        drained_at: None,
        reason: None,
    }
}

struct Case {
    snapshot: Snapshot,
    at_rest: bool,
    level: Level,
}

impl Case {
    fn new(nodes: Vec<NodeRow>) -> Self {
        Self {
            snapshot: Snapshot {
                now: Timestamp(now()),
                nodes,
                sessions: Vec::new(),
                uses: Vec::new(),
                tenants: vec![tenant(1)],
                pools: Vec::new(),
            },
            at_rest: false,
            level: Level {
                fill_level: 0,
                reuse: None,
            },
        }
    }

    fn lent(mut self, session_id: i64, node: &NodeRow) -> Self {
        if !self
            .snapshot
            .sessions
            .iter()
            .any(|row| row.id == session_id)
        {
            self.snapshot.sessions.push(session(session_id, 1));
        }
        self.snapshot.uses.push(used(session_id, node.clone()));
        self
    }

    /// The numbers of the promises that are broken, and how many notes there are.
    fn judged(&self) -> (Vec<u8>, usize) {
        let mut report = CheckReport::default();
        let levels = BTreeMap::from([("p".to_owned(), self.level.clone())]);
        let expected = Expected {
            at_rest: self.at_rest,
            lease: Duration::from_mins(1),
            quota: &|_| 2,
            levels: &levels,
        };
        judge(&self.snapshot, &expected, &mut report);
        let broken = report.findings.iter().map(|finding| finding.invariant);
        (broken.collect(), report.notes.len())
    }
}

#[test]
fn nobody_is_stuck_who_has_a_reason() {
    let old = || node(1, NodeState::Provisioning, 3600);
    let none = (vec![], 0);
    assert_eq!(Case::new(vec![old()]).judged(), (vec![1], 0));
    let fresh = node(1, NodeState::Provisioning, 30);
    assert_eq!(Case::new(vec![fresh]).judged(), none);
    let leased = NodeRow {
        lease_expires_at: Some(ago(-5)),
        ..old()
    };
    assert_eq!(Case::new(vec![leased.clone()]).judged(), none);
    let paused = NodeRow {
        retry_at: Some(ago(-300)),
        ..old()
    };
    assert_eq!(Case::new(vec![paused]).judged(), none);
    let lapsed = NodeRow {
        lease_expires_at: Some(ago(600)),
        retry_at: Some(ago(300)),
        ..old()
    };
    assert_eq!(Case::new(vec![lapsed]).judged(), (vec![1], 0));
    let held = NodeRow {
        held_at: Some(ago(1000)),
        ..old()
    };
    assert_eq!(Case::new(vec![held]).judged(), (vec![], 1));
    let mut of_failing = Case::new(vec![old()]);
    of_failing.snapshot.pools.push(pool_state(100));
    assert_eq!(of_failing.judged(), none);
    // At rest even work is too much.
    let mut at_rest = Case::new(vec![leased]);
    at_rest.at_rest = true;
    assert_eq!(at_rest.judged(), (vec![1], 0));
}

#[test]
fn nodes_and_sessions() {
    let deployed = node(1, NodeState::Deployed, 10);
    let good = Case::new(vec![deployed.clone()]).lent(7, &deployed);
    assert_eq!(good.judged(), (vec![], 0));
    let twice = Case::new(vec![deployed.clone()])
        .lent(7, &deployed)
        .lent(8, &deployed);
    assert_eq!(twice.judged(), (vec![2], 0));
    assert_eq!(Case::new(vec![deployed]).judged(), (vec![3], 0));
    let ready = node(1, NodeState::Ready, 10);
    assert_eq!(
        Case::new(vec![ready.clone()]).lent(7, &ready).judged(),
        (vec![3], 0)
    );
    let mut empty = Case::new(vec![]);
    empty.snapshot.sessions.push(session(7, 1));
    assert_eq!(empty.judged(), (vec![3], 0));
}

#[test]
fn quotas() {
    let nodes: Vec<_> = (1..=3)
        .map(|id| node(id, NodeState::Deployed, 10))
        .collect();
    let mut case = Case::new(nodes.clone());
    for node in &nodes {
        case = case.lent(node.id, node);
    }
    assert_eq!(case.judged(), (vec![5], 0));
    case.snapshot.tenants[0].is_admin = true;
    assert_eq!(case.judged(), (vec![], 0));
}

#[test]
fn a_pool_is_full_or_the_reason_is_on_record() {
    let ready = node(1, NodeState::Ready, 10);
    let mut case = Case::new(vec![ready, node(2, NodeState::Provisioning, 10)]);
    case.level.fill_level = 2;
    assert_eq!(case.judged(), (vec![], 0));
    case.level.fill_level = 3;
    assert_eq!(case.judged(), (vec![], 1), "it may be filled just now");
    case.snapshot.nodes.pop();
    case.at_rest = true;
    assert_eq!(case.judged(), (vec![7], 0));
    case.snapshot.pools.push(pool_state(100));
    assert_eq!(case.judged(), (vec![], 1));
    case.snapshot.pools.clear();
    let mut failed = node(3, NodeState::Failed, 10);
    failed
        .data
        .0
        .insert("error".into(), json!({"detail": "broken"}));
    case.snapshot.nodes.push(failed);
    assert_eq!(case.judged(), (vec![], 1));
}

#[test]
fn a_pool_whose_nodes_are_all_in_use_cannot_be_full() {
    let mut case = Case::new(vec![]);
    case.at_rest = true;
    case.level = Level {
        fill_level: 1,
        reuse: json!({"class": "big"}).as_object().cloned(),
    };
    assert_eq!(case.judged(), (vec![], 1));
    let mut unused = node(1, NodeState::Unused, 10);
    unused.pool = None;
    unused.reusable = true;
    unused.data.0.insert("class".into(), json!("small"));
    case.snapshot.nodes.push(unused);
    assert_eq!(case.judged(), (vec![], 1));
    let mut fitting = case.snapshot.nodes[0].clone();
    fitting.data.0.insert("class".into(), json!("big"));
    case.snapshot.nodes.push(fitting);
    assert_eq!(case.judged(), (vec![7], 0));
    case.snapshot.nodes[1].held_at = Some(ago(1));
    assert_eq!(case.judged(), (vec![], 1));
}
