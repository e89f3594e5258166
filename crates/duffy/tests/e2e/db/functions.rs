//! Tenants, nodes, sessions and leases.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use duffy_api::{NodeCreate, NodeState, TenantCreate};
use duffy_server::db::leases::{Portion, Waiting};
use duffy_server::db::nodes::{self, NodeRow, PoolLock, State};
use duffy_server::db::sessions::{self, SessionRow};
use duffy_server::db::tenants::{self, TenantRow};
use duffy_server::db::transitions::{self, Change};
use duffy_server::db::{
    Db, DbError, Interval, JsonObject, Timestamp, Tx, Unique, events, leases, operators, pools,
    probes,
};
use duffy_server::node_state::Transition;
use serde_json::json;

use super::Engines;

/// Runs a function in its own transaction.
macro_rules! tx {
    ($db:expr, |$tx:ident| $call:expr) => {
        $db.transaction(async |mut $tx| $call.await).await.unwrap()
    };
}

fn object(value: &serde_json::Value) -> JsonObject {
    JsonObject(value.as_object().unwrap().clone())
}

fn new_tenant(name: &str) -> TenantCreate {
    TenantCreate {
        name: name.into(),
        is_admin: false,
        ssh_key: "ssh-ed25519 AAAA".into(),
        node_quota: Some(3),
        session_lifetime: Some(TimeDelta::milliseconds(788_645_006)),
        session_lifetime_max: None,
    }
}

fn new_node(number: u8, pool: Option<&str>) -> NodeCreate {
    NodeCreate {
        hostname: format!("node{number}.example.org"),
        ipaddr: format!("192.0.2.{number}"),
        comment: None,
        pool: pool.map(str::to_owned),
        reusable: true,
        data: object(&json!({"z": 1, "a": {"nested": [1, 2.5, null]}})).0,
    }
}

/// A node of a pool is ready.
async fn insert(db: &Db, node: NodeCreate) -> NodeRow {
    let state = node
        .pool
        .as_ref()
        .map_or(NodeState::Unused, |_| NodeState::Ready);
    tx!(db, |tx| nodes::insert_node(&mut tx, &node, state))
}

async fn state(db: &Db, id: i64) -> NodeState {
    tx!(db, |tx| nodes::find_node(&mut tx, id)).unwrap().state.0
}

/// Creates a tenant, a session of one hour, and a node that the session has reserved.
async fn reserve(db: &Db) -> (TenantRow, SessionRow, NodeRow) {
    let tenant = tx!(db, |tx| tenants::insert_tenant(
        &mut tx,
        &new_tenant("t"),
        &"hash".into()
    ));
    insert(db, new_node(1, Some("p"))).await;
    let data = object(&json!({"nodes_specs": []}));
    let hour = Interval(TimeDelta::hours(1));
    let session = tx!(db, |tx| sessions::insert_session(
        &mut tx, tenant.id, &data, hour, true
    ));
    assert_eq!((session.other_sessions, session.other_nodes), (0, 0));
    let session = session.session;
    let taken = tx!(db, |tx| nodes::take_ready_nodes(&mut tx, "p", 1));
    let node = taken.into_iter().next().unwrap();
    lend(db, &session, &node).await;
    (tenant, session, node)
}

const MINUTE: Duration = Duration::from_mins(1);

async fn reserve_under(
    db: &Db,
    session: &SessionRow,
    node: &NodeRow,
    lease: &str,
    length: Duration,
) {
    let change = Change {
        lease: Some(lease),
        lease_length: length,
        session: Some(session),
        ..Change::default()
    };
    apply(db, Transition::Reserve, node.id, change).await;
}

/// Applies a transition to a node. Returns whether it is allowed.
async fn apply(db: &Db, transition: Transition, id: i64, change: Change<'_>) -> bool {
    let moved = tx!(db, |tx| transitions::apply(
        &mut tx,
        transition,
        &[id],
        &change
    ));
    !moved.is_empty()
}

/// Applies a transition with a lease.
async fn work(db: &Db, transition: Transition, node: &NodeRow, lease: &str) -> bool {
    let change = Change {
        lease: Some(lease),
        ..Change::default()
    };
    apply(db, transition, node.id, change).await
}

/// Applies a transition for an operator.
async fn by_hand(db: &Db, transition: Transition, id: i64) {
    let change = Change {
        detail: Some("why"),
        ..Change::default()
    };
    assert!(apply(db, transition, id, change).await, "{transition:?}");
}

/// Ends a session like the program.
async fn retire(db: &Db, session: &SessionRow) -> Option<SessionRow> {
    let retired = tx!(db, |tx| sessions::retire_session(&mut tx, session.id, None));
    if retired.is_some() {
        let nodes = tx!(db, |tx| sessions::lock_nodes_of_session(
            &mut tx, session.id
        ));
        let nodes: Vec<i64> = nodes.iter().map(|lent| lent.node.id).collect();
        let change = Change {
            session: Some(session),
            ..Change::default()
        };
        tx!(db, |tx| transitions::apply(
            &mut tx,
            Transition::Retire,
            &nodes,
            &change
        ));
    }
    retired
}

/// Makes a node ready with this name and address, like the program.
async fn make_ready(
    db: &Db,
    node: &NodeRow,
    lease: &str,
    hostname: &str,
    ipaddr: &str,
) -> Result<bool, DbError> {
    let change = Change {
        lease: Some(lease),
        hostname: Some(hostname),
        ipaddr: Some(ipaddr),
        ..Change::default()
    };
    db.transaction(async |mut tx| {
        let taken = leases::taken_elsewhere(&mut tx, node.id, hostname, ipaddr).await?;
        if let Some(unique) = taken {
            return Err(DbError::NotUnique(unique));
        }
        let ready = transitions::apply_to(&mut tx, Transition::MakeReady, node, &change).await?;
        Ok(ready.is_some())
    })
    .await
}

/// Reserves a node for a session.
async fn lend(db: &Db, session: &SessionRow, node: &NodeRow) {
    let change = Change {
        lease: Some("lease"),
        lease_length: MINUTE,
        session: Some(session),
        ..Change::default()
    };
    let nodes = std::slice::from_ref(node);
    let lent = tx!(db, |tx| transitions::reserve(
        &mut tx, session, nodes, &change
    ));
    assert_eq!(lent.unwrap().len(), 1);
}

/// Returns the events of a node: cause, old state and new state.
async fn history(db: &Db, id: i64) -> Vec<(String, Option<String>, Option<String>)> {
    let rows = tx!(db, |tx| events::list_of_node(&mut tx, id, 0, None, 100));
    let brief = rows.into_iter();
    brief
        .map(|row| (row.cause, row.from_state, row.to_state))
        .collect()
}

fn happened(cause: &str, from: &str, to: &str) -> (String, Option<String>, Option<String>) {
    let state = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (cause.to_owned(), state(from), state(to))
}

#[tokio::test]
async fn tenants_are_added_changed_and_retired() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let tenant = tx!(db, |tx| tenants::insert_tenant(
            &mut tx,
            &new_tenant("ci"),
            &"hash".into()
        ));
        assert_eq!(
            tenant.session_lifetime,
            Some(Interval(TimeDelta::milliseconds(788_645_006)))
        );
        assert_eq!(tenant.session_lifetime_max, None);
        let taken = db
            .transaction(async |mut tx| {
                tenants::insert_tenant(&mut tx, &new_tenant("ci"), &"hash".into()).await?;
                Ok(())
            })
            .await;
        assert!(
            matches!(taken, Err(DbError::NotUnique(Unique::TenantName))),
            "{taken:?}"
        );

        let mut found = tenants::find_tenant_by_name(db, "ci")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.id, tenant.id);
        assert!(
            tenants::find_tenant_by_name(db, "nobody")
                .await
                .unwrap()
                .is_none()
        );
        found.node_quota = None;
        found.session_lifetime_max = Some(Interval(TimeDelta::days(400)));
        tx!(db, |tx| tenants::update_tenant(&mut tx, &found));
        let changed = tx!(db, |tx| tenants::lock_tenant(&mut tx, tenant.id)).unwrap();
        assert_eq!(changed.node_quota, None);
        assert_eq!(
            changed.session_lifetime_max,
            Some(Interval(TimeDelta::days(400)))
        );

        let retired = tx!(db, |tx| tenants::set_tenant_active(
            &mut tx, tenant.id, false
        ))
        .unwrap();
        assert!(retired.retired_at.unwrap() >= retired.created_at);
        let back = tx!(db, |tx| tenants::set_tenant_active(
            &mut tx, tenant.id, true
        ))
        .unwrap();
        assert!(back.retired_at.is_none());
        assert!(tx!(db, |tx| tenants::find_tenant(&mut tx, 999)).is_none());
        assert_eq!(tx!(db, |tx| tenants::list_tenants(&mut tx, None)).len(), 1);
        assert_eq!(
            tx!(db, |tx| tenants::list_tenants(&mut tx, Some(999))).len(),
            0
        );
    }
}

#[tokio::test]
async fn nodes_are_added_counted_and_picked() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let unused = insert(db, new_node(1, None)).await;
        assert_eq!(unused.state.0, NodeState::Unused);
        // Members keep their order in both engines.
        let text = serde_json::to_string(&unused.data.0).unwrap();
        assert_eq!(text, r#"{"z":1,"a":{"nested":[1,2.5,null]}}"#);
        for (node, unique) in [
            (
                NodeCreate {
                    ipaddr: "192.0.2.9".into(),
                    ..new_node(1, None)
                },
                Unique::NodeHostname,
            ),
            (
                NodeCreate {
                    hostname: "n".into(),
                    ..new_node(1, None)
                },
                Unique::NodeAddress,
            ),
        ] {
            let node = &node;
            let taken = db
                .transaction(async |mut tx| {
                    nodes::insert_node(&mut tx, node, NodeState::Unused).await?;
                    Ok(())
                })
                .await;
            assert!(
                matches!(&taken, Err(DbError::NotUnique(rule)) if *rule == unique),
                "{taken:?}"
            );
        }

        assert_eq!(tx!(db, |tx| nodes::list_reusable_nodes(&mut tx)).len(), 1);
        for (pool, allowed) in [("p", true), ("q", false)] {
            let change = Change {
                pool: Some(pool),
                ..Change::default()
            };
            let filled = apply(db, Transition::Fill, unused.id, change).await;
            assert_eq!(filled, allowed, "{pool}");
        }
        tx!(db, |tx| nodes::lock_pool(&mut tx, "p", PoolLock::Reserve));
        assert!(tx!(db, |tx| nodes::try_lock_pool(
            &mut tx,
            "p",
            PoolLock::Fill
        )));
        tx!(db, |tx| nodes::insert_provisioning_nodes(&mut tx, "p", 3));
        tx!(db, |tx| nodes::insert_provisioning_nodes(&mut tx, "p", 0));
        insert(db, new_node(2, Some("p"))).await;
        assert_eq!(tx!(db, |tx| nodes::count_filled_of(&mut tx, "p")), 5);
        assert_eq!(tx!(db, |tx| nodes::count_filled_of(&mut tx, "q")), 0);
        let filled = tx!(db, |tx| nodes::count_filled(&mut tx));
        assert_eq!(
            filled
                .iter()
                .map(|row| (&*row.name, row.quantity))
                .collect::<Vec<_>>(),
            [("p", 5)]
        );
        let (counts, states) = tx!(db, |tx| pools::count_nodes(&mut tx, "p"));
        assert_eq!((counts.provisioning, counts.ready), (4, 1));
        assert!(states.is_empty(), "{states:?}");
        assert_eq!(tx!(db, |tx| nodes::count_ready(&mut tx, "p")), 1);
        let next = tx!(db, |tx| nodes::next_ready_node(&mut tx, "p")).unwrap();
        assert_eq!(next.hostname.as_deref(), Some("node2.example.org"));
        tx!(db, |tx| nodes::await_ready_nodes(&mut tx, "p", 5));
        let active = tx!(db, |tx| nodes::list_active_nodes(&mut tx));
        assert_eq!(active.len(), 5);
        let ids = |rows: &[NodeRow]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
        let after = active[1].id;
        let page = tx!(db, |tx| nodes::list_active_nodes_after(&mut tx, after, 2));
        assert_eq!(ids(&page), ids(&active[2..4]));
        assert!(tx!(db, |tx| nodes::find_node(&mut tx, 999)).is_none());
    }
}

#[tokio::test]
async fn sessions_are_granted_changed_and_retired() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let (tenant, session, node) = reserve(db).await;
        let lifetime = session.expires_at.unwrap().0 - session.created_at.0;
        assert!(
            (lifetime - TimeDelta::hours(1)).abs() < TimeDelta::seconds(1),
            "{lifetime}"
        );
        assert_eq!(tx!(db, |tx| sessions::last_session_id(&mut tx)), session.id);
        let of_tenant = async |counts| {
            let (data, hour) = (JsonObject::default(), Interval(TimeDelta::hours(1)));
            let (tenant_id, data) = (tenant.id, &data);
            let new = tx!(db, |tx| sessions::insert_session(
                &mut tx, tenant_id, data, hour, counts
            ));
            tx!(db, |tx| sessions::retire_session(
                &mut tx,
                new.session.id,
                None
            ));
            (new.other_sessions, new.other_nodes)
        };
        assert_eq!(of_tenant(true).await, (1, 1));
        assert_eq!(of_tenant(false).await, (0, 0));
        assert!(!work(db, Transition::Deploy, &node, "other").await);
        assert!(work(db, Transition::Deploy, &node, "lease").await);
        assert_eq!(state(db, node.id).await, NodeState::Deployed);

        for tenant_id in [None, Some(tenant.id)] {
            let listed = tx!(db, |tx| sessions::list_whole_sessions(&mut tx, tenant_id));
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].session.id, session.id);
            assert_eq!(listed[0].session.expires_at, session.expires_at);
            assert_eq!(listed[0].tenant.name, tenant.name);
            assert_eq!(
                listed[0].tenant.session_lifetime.unwrap().0,
                tenant.session_lifetime.unwrap().0
            );
            assert_eq!(listed[0].nodes.len(), 1);
            assert_eq!(listed[0].nodes[0].node.id, node.id);
        }
        assert!(tx!(db, |tx| sessions::list_whole_sessions(&mut tx, Some(999))).is_empty());
        assert_eq!(
            tx!(db, |tx| sessions::list_active_sessions(&mut tx)).len(),
            1
        );
        let nodes = tx!(db, |tx| sessions::list_nodes_of_active_sessions(&mut tx));
        assert_eq!(nodes[0].session_id, session.id);

        let second = insert(db, new_node(2, Some("p"))).await;
        let replace = |old, new| async move {
            tx!(db, |tx| sessions::replace_session_node(
                &mut tx,
                session.id,
                old,
                new,
                &JsonObject::default()
            ))
        };
        assert!(replace(node.id, second.id).await);
        assert!(!replace(node.id, second.id).await);
        assert!(replace(second.id, node.id).await);

        let later = Timestamp(session.created_at.0 + TimeDelta::hours(2));
        tx!(db, |tx| sessions::set_expiry(&mut tx, &session, later));
        let found = tx!(db, |tx| sessions::lock_session(&mut tx, session.id)).unwrap();
        assert_eq!(found.expires_at, Some(later));
        assert!(tx!(db, |tx| sessions::list_expired_sessions(&mut tx, 10)).is_empty());
        assert!(!tx!(db, |tx| sessions::lock_expired_session(
            &mut tx, session.id
        )));
        let earlier = Timestamp(session.created_at.0 - TimeDelta::hours(2));
        tx!(db, |tx| sessions::set_expiry(&mut tx, &session, earlier));
        assert_eq!(
            tx!(db, |tx| sessions::list_expired_sessions(&mut tx, 10)),
            [session.id]
        );
        assert!(tx!(db, |tx| sessions::lock_expired_session(
            &mut tx, session.id
        )));

        let retired = retire(db, &session).await.unwrap();
        assert!(retired.retired_at.is_some());
        assert!(retire(db, &session).await.is_none());
        assert_eq!(state(db, node.id).await, NodeState::Deprovisioning);
        assert_eq!(state(db, second.id).await, NodeState::Ready);
        assert_eq!(of_tenant(true).await, (0, 0));
        let (counts, _) = tx!(db, |tx| pools::count_nodes(&mut tx, "p"));
        let found = (counts.ready, counts.deprovisioning, counts.released);
        assert_eq!(found, (1, 1, 0), "the node has no specification");
        let ended = tx!(db, |tx| sessions::find_whole_session(&mut tx, session.id));
        let ended = ended.unwrap();
        assert_eq!(ended.session.retired_at, retired.retired_at);
        assert_eq!(ended.nodes.len(), 1);
        assert!(tx!(db, |tx| sessions::find_whole_session(&mut tx, 999)).is_none());
        let nodes = tx!(db, |tx| sessions::list_nodes_of_session(
            &mut tx, session.id
        ));
        assert_eq!(nodes[0].node.id, node.id);
        let pool = tx!(db, |tx| sessions::last_pool_of_node(&mut tx, node.id));
        assert_eq!(pool.as_deref(), Some("p"));
        assert!(tx!(db, |tx| sessions::find_session(&mut tx, session.id)).is_some());
        assert_eq!(
            history(db, node.id).await,
            [
                happened("registered", "", "ready"),
                happened("reserved", "ready", "contextualizing"),
                happened("deployed", "contextualizing", "deployed"),
                happened("retired", "deployed", "deprovisioning"),
            ]
        );
        let events = tx!(db, |tx| events::list_of_session(
            &mut tx, session.id, 0, 100
        ));
        let causes: Vec<_> = events.iter().map(|event| event.cause.as_str()).collect();
        assert_eq!(causes, ["reserved", "extended", "extended", "retired"]);
        assert!(events.iter().all(|event| event.actor == "duffy"));
        assert!(tx!(db, |tx| sessions::find_session(&mut tx, 999)).is_none());
    }
}

#[tokio::test]
async fn unfinished_requests_are_found() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let (_, session, node) = reserve(db).await;
        assert!(tx!(db, |tx| sessions::list_abandoned_sessions(&mut tx)).is_empty());
        // The lease expires.
        assert_eq!(tx!(db, |tx| leases::renew_lease(&mut tx, "lease", -1.0)), 1);
        assert_eq!(
            tx!(db, |tx| sessions::list_abandoned_sessions(&mut tx)),
            [session.id]
        );
        // Its session is active, so the node is no orphan.
        assert!(tx!(db, |tx| sessions::list_orphans(&mut tx)).is_empty());
        let orphan = insert(db, new_node(2, Some("p"))).await;
        reserve_under(db, &session, &orphan, "dead", Duration::ZERO).await;
        assert_eq!(tx!(db, |tx| sessions::list_orphans(&mut tx)), [orphan.id]);
        let released = apply(db, Transition::ReleaseOrphan, orphan.id, Change::default());
        assert!(released.await);
        assert_eq!(state(db, orphan.id).await, NodeState::Deprovisioning);
        let last = history(db, orphan.id).await.pop();
        assert_eq!(
            last,
            Some(happened("orphaned", "contextualizing", "deprovisioning"))
        );
        assert_eq!(state(db, node.id).await, NodeState::Contextualizing);
    }
}

async fn claim(
    db: &Db,
    state: NodeState,
    pool: Option<&str>,
    portion: Portion,
    lease: &str,
) -> Vec<NodeRow> {
    let group = Waiting {
        pool: pool.map(str::to_owned),
        state: State(state),
        quantity: 1,
        overdue: false,
        failing: false,
        held: false,
    };
    tx!(db, |tx| leases::claim_nodes(
        &mut tx, &group, portion, lease, MINUTE
    ))
}

#[tokio::test]
async fn a_lease_has_one_owner_until_it_ends() {
    let engines = Engines::new().await;
    for db in engines.both() {
        tx!(db, |tx| nodes::insert_provisioning_nodes(&mut tx, "p", 4));
        let waiting = tx!(db, |tx| leases::list_waiting(&mut tx));
        assert_eq!(waiting.len(), 1);
        assert_eq!(
            (
                waiting[0].pool.as_deref(),
                waiting[0].state.0,
                waiting[0].quantity
            ),
            (Some("p"), NodeState::Provisioning, 4)
        );
        let mut mine = Vec::new();
        for _ in 0..2 {
            mine.extend(claim(db, NodeState::Provisioning, Some("p"), Portion::One, "mine").await);
        }
        assert_eq!(
            mine.iter().map(|node| node.attempts).collect::<Vec<_>>(),
            [1, 1]
        );
        let rest = claim(
            db,
            NodeState::Provisioning,
            Some("p"),
            Portion::Batch,
            "rest",
        )
        .await;
        assert_eq!(rest.len(), 2, "what is leased is left alone");
        assert!(
            claim(
                db,
                NodeState::Provisioning,
                Some("p"),
                Portion::Batch,
                "more"
            )
            .await
            .is_empty()
        );
        assert!(
            claim(
                db,
                NodeState::Deprovisioning,
                Some("p"),
                Portion::Batch,
                "x"
            )
            .await
            .is_empty()
        );
        assert!(
            claim(db, NodeState::Provisioning, None, Portion::Batch, "x")
                .await
                .is_empty()
        );
        assert!(
            claim(db, NodeState::Ready, Some("p"), Portion::Batch, "x")
                .await
                .is_empty()
        );

        // Handed back: free immediately, and the attempt does not count.
        assert_eq!(tx!(db, |tx| leases::hand_back_lease(&mut tx, "rest")), 2);
        let again = claim(
            db,
            NodeState::Provisioning,
            Some("p"),
            Portion::Batch,
            "rest",
        )
        .await;
        assert_eq!(
            again.iter().map(|node| node.attempts).collect::<Vec<_>>(),
            [1, 1]
        );
        // Milliseconds since 1970, which are later than the date of this test.
        assert!(rest[0].fence > 1_790_000_000_000, "{}", rest[0].fence);
        assert!(again[0].fence > rest[0].fence);
        // Expired: free, and the attempt counts.
        assert_eq!(tx!(db, |tx| leases::renew_lease(&mut tx, "rest", -1.0)), 2);
        let stolen = claim(
            db,
            NodeState::Provisioning,
            Some("p"),
            Portion::Batch,
            "thief",
        )
        .await;
        assert_eq!(
            stolen.iter().map(|node| node.attempts).collect::<Vec<_>>(),
            [2, 2]
        );

        // A write with a lost lease changes nothing.
        let node = &stolen[0];
        let finish =
            async |lease: &str, name: &str| make_ready(db, node, lease, name, name).await.unwrap();
        assert!(!finish("rest", "late").await);
        assert!(finish("thief", "quick").await);
        assert!(!finish("thief", "twice").await);
        assert_eq!(tx!(db, |tx| leases::renew_lease(&mut tx, "rest", 60.0)), 0);
        let node = tx!(db, |tx| nodes::find_node(&mut tx, node.id)).unwrap();
        assert_eq!(
            (node.state.0, node.hostname.as_deref()),
            (NodeState::Ready, Some("quick"))
        );
        assert_eq!(node.attempts, 0);

        // Postponed: not claimed before its time.
        let other = &stolen[1];
        let data = object(&json!({"x": 1}));
        let fail = async |transition, node: &NodeRow, lease: &str, pause| {
            let change = Change {
                lease: Some(lease),
                pause,
                data: Some(&data),
                detail: Some("why\0"),
                ..Change::default()
            };
            apply(db, transition, node.id, change).await
        };
        let hour = Some(Duration::from_hours(1));
        assert!(fail(Transition::Postpone, other, "thief", hour).await);
        assert!(!fail(Transition::Postpone, other, "thief", hour).await);
        let last = history(db, other.id).await.pop();
        assert_eq!(
            last,
            Some(happened("postponed", "provisioning", "provisioning")),
            "once, by the lease's owner"
        );
        assert!(
            claim(db, NodeState::Provisioning, Some("p"), Portion::Batch, "x")
                .await
                .is_empty()
        );
        // Failed.
        let (first, second) = (&mine[0], &mine[1]);
        assert!(!fail(Transition::Fail, first, "thief", hour).await);
        assert!(fail(Transition::Fail, first, "mine", Some(Duration::ZERO)).await);
        assert_eq!(state(db, first.id).await, NodeState::Failed);
        assert!(fail(Transition::Fail, second, "mine", None).await);
        let due = tx!(db, |tx| operators::list_repairable(&mut tx, 10));
        assert_eq!(due, [first.id]);
        let lock = async |id| tx!(db, |tx| operators::lock_repairable(&mut tx, id)).is_some();
        assert!(lock(first.id).await && !lock(second.id).await);
        assert!(apply(db, Transition::Repair, first.id, Change::default()).await);
        assert!(!apply(db, Transition::Repair, first.id, Change::default()).await);
        assert!(!lock(first.id).await);
        let row = tx!(db, |tx| nodes::find_node(&mut tx, first.id)).unwrap();
        assert_eq!((row.state.0, row.repairs), (NodeState::Deprovisioning, 1));
        by_hand(db, Transition::StopRepairs, second.id).await;
    }
}

#[tokio::test]
async fn a_deprovisioned_node_is_unused_or_done() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let (_, session, first) = reserve(db).await;
        let second = NodeCreate {
            reusable: false,
            ..new_node(2, Some("p"))
        };
        let second = insert(db, second).await;
        lend(db, &session, &second).await;
        let third = insert(db, new_node(3, Some("p"))).await;
        reserve_under(db, &session, &third, "lease", MINUTE).await;
        let give_back = async || work(db, Transition::Return, &third, "lease").await;
        assert!(give_back().await);
        assert!(!give_back().await);
        assert_eq!(state(db, third.id).await, NodeState::Ready);
        lend(db, &session, &third).await;
        retire(db, &session).await;
        assert_eq!(state(db, third.id).await, NodeState::Deprovisioning);
        // The process that installs keys on them keeps its lease until it hands them back.
        assert!(
            claim(
                db,
                NodeState::Deprovisioning,
                Some("p"),
                Portion::Batch,
                "l"
            )
            .await
            .is_empty()
        );
        assert_eq!(tx!(db, |tx| leases::hand_back_lease(&mut tx, "lease")), 3);
        let claimed = claim(
            db,
            NodeState::Deprovisioning,
            Some("p"),
            Portion::Batch,
            "l",
        )
        .await;
        assert_eq!(
            claimed.iter().map(|node| node.id).collect::<Vec<_>>(),
            [first.id, second.id, third.id]
        );
        let finish = async |node: &NodeRow| {
            work(db, Transition::MakeUnused, node, "l").await
                || work(db, Transition::Finish, node, "l").await
        };
        assert!(finish(&claimed[0]).await);
        assert!(finish(&claimed[1]).await);
        assert!(!finish(&claimed[1]).await);
        assert_eq!(
            history(db, second.id).await.split_off(3),
            [
                happened("handed-back", "deprovisioning", "deprovisioning"),
                happened("claimed", "deprovisioning", "deprovisioning"),
                happened("deprovisioned", "deprovisioning", "done"),
            ]
        );
        let unused = tx!(db, |tx| nodes::find_node(&mut tx, first.id)).unwrap();
        assert_eq!(
            (unused.state.0, unused.pool, unused.retired_at),
            (NodeState::Unused, None, None)
        );
        let done = tx!(db, |tx| nodes::find_node(&mut tx, second.id)).unwrap();
        assert_eq!(
            (done.state.0, done.pool.as_deref()),
            (NodeState::Done, None)
        );
        assert!(done.retired_at.is_some());
        assert!(!tx!(db, |tx| leases::set_pool(&mut tx, third.id, "q")));
        let third = tx!(db, |tx| nodes::find_node(&mut tx, third.id)).unwrap();
        assert_eq!(
            third.pool.as_deref(),
            Some("p"),
            "a pool that is known stays"
        );
    }
}

#[tokio::test]
async fn retired_nodes_are_not_reused() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let (_, session, lent) = reserve(db).await;
        let ready = insert(db, new_node(2, Some("p"))).await;
        let unused = insert(db, new_node(3, None)).await;
        let shown = tx!(db, |tx| operators::show_node(&mut tx, lent.id)).unwrap();
        assert_eq!(shown.session_id.map(i64::from), Some(session.id));
        assert_eq!(shown.tenant.as_deref(), Some("t"));
        let listed = tx!(db, |tx| operators::list_nodes(&mut tx, None, None, false));
        assert_eq!(listed.len(), 3);
        let state_only = Some(NodeState::Ready);
        let listed = tx!(db, |tx| operators::list_nodes(
            &mut tx,
            Some("p"),
            state_only,
            true
        ));
        assert_eq!(listed.len(), 1);
        let levels = tx!(db, |tx| operators::list_levels(&mut tx));
        assert_eq!(levels.iter().map(|level| level.quantity).sum::<i64>(), 2);

        // The node is retired during its deprovisioning.
        by_hand(db, Transition::TakeDown, ready.id).await;
        retire(db, &session).await;
        tx!(db, |tx| leases::hand_back_lease(&mut tx, "lease"));
        let (deprovisioning, batch) = (NodeState::Deprovisioning, Portion::Batch);
        let claimed = claim(db, deprovisioning, Some("p"), batch, "l").await;
        assert_eq!(
            claimed.iter().map(|node| node.id).collect::<Vec<_>>(),
            [lent.id, ready.id]
        );
        assert!(claimed[0].reusable);
        assert!(tx!(db, |tx| operators::lock_node(&mut tx, lent.id)).is_some());
        by_hand(db, Transition::ForbidReuse, lent.id).await;
        for node in &claimed {
            assert!(!work(db, Transition::MakeUnused, node, "l").await);
            assert!(work(db, Transition::Finish, node, "l").await);
            assert_eq!(state(db, node.id).await, NodeState::Done);
        }
        by_hand(db, Transition::Forget, unused.id).await;
        assert_eq!(
            history(db, unused.id).await.pop(),
            Some(happened("node-retired", "unused", "done"))
        );
        let last = tx!(db, |tx| events::last_of_node(&mut tx, lent.id, 1));
        assert_eq!(last[0].to_state.as_deref(), Some("done"));
    }
}

#[tokio::test]
async fn operators_hold_and_repair_nodes() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let node = insert(db, new_node(1, Some("p"))).await;
        let hold = async |transition| {
            by_hand(db, transition, node.id).await;
            tx!(db, |tx| nodes::count_ready(&mut tx, "p"))
        };
        assert_eq!(hold(Transition::Hold).await, 0);
        assert_eq!(tx!(db, |tx| operators::list_levels(&mut tx))[0].held, 1);
        assert!(!apply(db, Transition::TakeDown, node.id, Change::default()).await);
        assert_eq!(hold(Transition::Release).await, 1);
        fail(db, &node).await;
        by_hand(db, Transition::RepairByHand, node.id).await;
        by_hand(db, Transition::RetryNow, node.id).await;
        let claimed = claim(db, NodeState::Deprovisioning, Some("p"), Portion::One, "l").await;
        assert_eq!(claimed.len(), 1);
        assert!(!apply(db, Transition::RetryNow, node.id, Change::default()).await);
        assert!(work(db, Transition::Fail, &node, "l").await);
        by_hand(db, Transition::Reuse, node.id).await;
        assert_eq!(state(db, node.id).await, NodeState::Unused);
    }
}

/// Lets a ready node fail.
async fn fail(db: &Db, node: &NodeRow) {
    let change = Change {
        lease: Some("failing"),
        lease_length: MINUTE,
        ..Change::default()
    };
    assert!(apply(db, Transition::Reserve, node.id, change).await);
    assert!(apply(db, Transition::Fail, node.id, change).await);
}

/// For a held node, a worker only removes the key, once, also if another worker died or stopped during this.
#[tokio::test]
async fn a_held_node_waits_until_its_key_is_removed() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let node = insert(db, new_node(1, Some("p"))).await;
        let waiting = async || tx!(db, |tx| leases::list_waiting(&mut tx));
        let claim = async |lease: &str, length: Duration| {
            let group = waiting().await.pop().unwrap();
            assert!(group.held && !group.failing, "{group:?}");
            let portion = Portion::One;
            let nodes = tx!(db, |tx| leases::claim_nodes(
                &mut tx, &group, portion, lease, length
            ));
            assert_eq!(nodes.len(), 1);
            nodes
        };
        fail(db, &node).await;
        by_hand(db, Transition::RepairByHand, node.id).await;
        by_hand(db, Transition::HoldReturned, node.id).await;
        let kind = NodeState::Deprovisioning;
        tx!(db, |tx| pools::count_failure(
            &mut tx, "p", kind, "x", 1, 0.0
        ));
        tx!(db, |tx| pools::set_retry(&mut tx, "p", kind, 600.0));
        // The first worker dies, the second one stops.
        claim("dead", Duration::ZERO).await;
        claim("stopped", MINUTE).await;
        assert_eq!(waiting().await, []);
        tx!(db, |tx| leases::hand_back_lease(&mut tx, "stopped"));
        // `admin check` measures the time from here, not from the change of the state.
        let row = tx!(db, |tx| nodes::find_node(&mut tx, node.id)).unwrap();
        assert!(row.retry_at >= row.state_since && row.retry_at.is_some());
        let nodes = claim("failing", MINUTE).await;
        let change = Change {
            lease: Some("failing"),
            pause: Some(Duration::ZERO),
            ..Change::default()
        };
        assert!(apply(db, Transition::PostponeKeys, nodes[0].id, change).await);
        let nodes = claim("done", MINUTE).await;
        assert!(work(db, Transition::RemoveKeys, &nodes[0], "done").await);
        assert_eq!(waiting().await, []);
        by_hand(db, Transition::LetGoReturned, node.id).await;
        assert_eq!(
            waiting().await,
            [],
            "the pool's mechanism is to be used now"
        );
        tx!(db, |tx| pools::clear_failures(&mut tx, "p", kind));
        assert!(!waiting().await[0].held);
    }
}

/// Concurrent transactions never take the same row.
#[tokio::test(flavor = "multi_thread")]
async fn claims_do_not_overlap() {
    let engines = Engines::new().await;
    for db in engines.both() {
        tx!(db, |tx| nodes::insert_provisioning_nodes(&mut tx, "p", 40));
        let start = Arc::new(tokio::sync::Barrier::new(8));
        let claimers = (0..8).map(|number| {
            let (db, start) = (db.clone(), start.clone());
            tokio::spawn(async move {
                let lease = format!("lease{number}");
                let portion = [Portion::One, Portion::Each(3)][number % 2];
                start.wait().await;
                let mut mine = Vec::new();
                loop {
                    let claimed =
                        claim(&db, NodeState::Provisioning, Some("p"), portion, &lease).await;
                    if claimed.is_empty() {
                        return mine;
                    }
                    mine.extend(claimed.into_iter().map(|node| node.id));
                }
            })
        });
        let mut all = Vec::new();
        for claimer in claimers.collect::<Vec<_>>() {
            all.extend(claimer.await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all.len(), 40);
        all.dedup();
        assert_eq!(all.len(), 40, "a node was claimed twice");
    }
}

#[tokio::test]
async fn nodes_claimed_together_have_leases_of_their_own() {
    let engines = Engines::new().await;
    for db in engines.both() {
        tx!(db, |tx| nodes::insert_provisioning_nodes(&mut tx, "p", 4));
        let several = async |most: u32, lease: &str| {
            let portion = Portion::Each(most);
            let nodes = claim(db, NodeState::Provisioning, Some("p"), portion, lease).await;
            nodes.iter().map(|node| node.id).collect::<Vec<_>>()
        };
        let ids = several(3, "mine").await;
        assert_eq!(ids.len(), 3);
        let own = |id: i64| transitions::lease_of_node("mine", id);
        for lease in ["mine", &own(ids[2] + 1)] {
            assert_eq!(tx!(db, |tx| leases::hand_back_lease(&mut tx, lease)), 0);
        }
        for id in &ids {
            assert_eq!(
                tx!(db, |tx| leases::renew_lease(&mut tx, &own(*id), 60.0)),
                1
            );
        }
        // One goes back, the others stay.
        assert_eq!(
            tx!(db, |tx| leases::hand_back_lease(&mut tx, &own(ids[1]))),
            1
        );
        let node = tx!(db, |tx| nodes::find_node(&mut tx, ids[0])).unwrap();
        let ready = make_ready(db, &node, &own(ids[0]), "name", "192.0.2.7").await;
        assert!(ready.unwrap());
        // An attempt at this node failed, so it comes after those without an attempt.
        let postpone = Change {
            lease: Some(&own(ids[2])),
            pause: Some(Duration::ZERO),
            ..Change::default()
        };
        assert!(apply(db, Transition::Postpone, ids[2], postpone).await);
        let mut rest = several(9, "fresh").await;
        rest.sort_unstable();
        assert_eq!(rest, [ids[1], ids[2] + 1]);
        assert_eq!(several(9, "failed").await, [ids[2]]);
        assert!(several(9, "none").await.is_empty());
    }
}

#[tokio::test]
async fn errors_roll_back_and_wake_ups_follow_the_commit() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let mut wake_ups = db.wake_ups();
        // The listener connects with the first wait.
        wake_ups.wait(Duration::from_millis(1)).await;
        let failed: Result<(), DbError> = db
            .transaction(async |mut tx: Tx| {
                nodes::insert_provisioning_nodes(&mut tx, "p", 1).await?;
                tx.wake_workers();
                Err(DbError::Corrupt("on purpose".into()))
            })
            .await;
        assert!(failed.is_err());
        assert_eq!(tx!(db, |tx| nodes::count_filled_of(&mut tx, "p")), 0);
        assert!(
            !wake_ups.wait(Duration::from_millis(50)).await,
            "woken by what did not happen"
        );
        let poll = Duration::from_secs(20);
        let (woken, ()) = tokio::join!(wake_ups.wait(poll), async {
            tx!(db, |tx| async {
                tx.wake_workers();
                Ok::<_, DbError>(())
            });
        });
        assert!(woken);
        db.ping().await.unwrap();
    }
}

/// A playbook's result can wrongly name a registered machine.
#[tokio::test]
async fn a_registered_nodes_name_and_address_are_unique_in_every_state() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let registered = insert(db, new_node(1, None)).await;
        tx!(db, |tx| nodes::insert_provisioning_nodes(&mut tx, "p", 1));
        let mine = claim(db, NodeState::Provisioning, Some("p"), Portion::One, "mine").await;
        let finish = async |hostname: &str, ipaddr: &str| {
            make_ready(db, &mine[0], "mine", hostname, ipaddr).await
        };
        let (name, address) = ("node1.example.org", "192.0.2.1");
        let refused = async |what: &str| {
            let error = finish("other", address).await;
            assert!(
                matches!(error, Err(DbError::NotUnique(Unique::NodeAddress))),
                "{what}: {error:?}"
            );
            let error = finish(name, "192.0.2.7").await;
            assert!(
                matches!(error, Err(DbError::NotUnique(Unique::NodeHostname))),
                "{what}: {error:?}"
            );
        };
        refused("unused").await;
        let fill = Change {
            pool: Some("q"),
            ..Change::default()
        };
        assert!(apply(db, Transition::Fill, registered.id, fill).await);
        refused("provisioning").await;
        let theirs = claim(db, NodeState::Provisioning, Some("q"), Portion::One, "its").await;
        assert!(work(db, Transition::Fail, &theirs[0], "its").await);
        refused("failed").await;

        // The machine is registered again, and provisioned beside the failed node.
        let again = insert(db, new_node(1, None)).await;
        assert!(apply(db, Transition::Fill, again.id, fill).await);
        let again = claim(
            db,
            NodeState::Provisioning,
            Some("q"),
            Portion::One,
            "again",
        )
        .await;
        let ready = make_ready(db, &again[0], "again", name, address).await;
        assert!(ready.unwrap());
        assert!(finish("other", "192.0.2.7").await.unwrap());
    }
}

#[tokio::test]
async fn ready_nodes_are_probed_by_one_process() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let mut ids = Vec::new();
        for (pool, number) in [("a", 1), ("a", 2), ("b", 3)] {
            ids.push(insert(db, new_node(number, Some(pool))).await.id);
        }
        // First the next one of each pool.
        let next = tx!(db, |tx| probes::list_next_lent(&mut tx, 2));
        let next: Vec<i64> = next.iter().map(|node| node.id).collect();
        assert_eq!(next, [ids[0], ids[2]]);

        let due = tx!(db, |tx| probes::list_due(&mut tx, MINUTE, 9));
        assert!(due.is_empty(), "they became ready just now");
        let due = tx!(db, |tx| probes::list_due(&mut tx, Duration::ZERO, 9));
        assert_eq!(due, ids);
        let claimed = tx!(db, |tx| probes::claim_due(&mut tx, MINUTE, &ids[..2]));
        assert_eq!(claimed.len(), 2);
        let claimed = tx!(db, |tx| probes::claim_due(&mut tx, MINUTE, &ids));
        let claimed: Vec<i64> = claimed.iter().map(|node| node.id).collect();
        assert_eq!(claimed, ids[2..], "another process probes the others");

        let others = tx!(db, |tx| probes::list_others(&mut tx, &ids[1..], 9));
        let others: Vec<i64> = others.iter().map(|node| node.id).collect();
        assert_eq!(others, ids[..1]);
        assert_eq!(tx!(db, |tx| probes::count_others(&mut tx, &ids[1..])), 1);
    }
}
