//! Random sequences of transitions, crashes and expired leases: each transition writes what its rule says, and nothing else.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use chrono::TimeDelta;
use duffy_api::{NodeCreate, NodeState, TenantCreate};
use duffy_server::db::nodes::{self, NodeRow};
use duffy_server::db::sessions::{self, SessionRow};
use duffy_server::db::tenants;
use duffy_server::db::transitions::{self, Around, Change};
use duffy_server::db::{
    Db, DbError, Interval, JsonObject, Timestamp, events, leases, old_events, operators,
};
use duffy_server::node_state::{self, Counter, Effect, LeaseCheck, Shape, Transition};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::Engines;

/// One step of a sequence. Numbers count modulo the number of items.
#[derive(Debug, Clone)]
enum Step {
    /// Any transition of any node, with the lease of any process.
    Apply {
        transition: usize,
        node: usize,
        process: usize,
    },
    /// A session takes the ready nodes.
    Request { process: usize },
    /// A session ends.
    End { end: usize, session: usize },
    /// A process stops renewing its lease.
    Lapse { process: usize },
    /// A worker reclaims the work of others.
    Reclaim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any = any::<usize>;
    let apply = (any(), any(), any()).prop_map(|(transition, node, process)| Step::Apply {
        transition,
        node,
        process,
    });
    let step = prop_oneof![
        12 => apply,
        3 => any().prop_map(|process| Step::Request { process }),
        1 => (any(), any()).prop_map(|(end, session)| Step::End { end, session }),
        2 => any().prop_map(|process| Step::Lapse { process }),
        1 => Just(Step::Reclaim),
    ];
    prop::collection::vec(step, 20..120)
}

/// The transitions that end a session.
const ENDS: [Transition; 4] = [
    Transition::Retire,
    Transition::Expire,
    Transition::Refuse,
    Transition::Abandon,
];
/// The transitions of nodes in sessions, and of orphans.
const OTHERS: [Transition; 7] = [
    Transition::Retire,
    Transition::Expire,
    Transition::Refuse,
    Transition::Abandon,
    Transition::Reserve,
    Transition::Deploy,
    Transition::ReleaseOrphan,
];
const PROCESSES: [&str; 3] = ["one", "two", "three"];
const NODES: usize = 5;

struct Fixture<'a> {
    db: &'a Db,
    nodes: Vec<i64>,
    sessions: Vec<SessionRow>,
    /// The process with the lease on a node.
    owners: HashMap<i64, String>,
    tenant_id: i64,
    /// The number of allowed transitions.
    moved: usize,
}

impl<'a> Fixture<'a> {
    async fn new(db: &'a Db, name: &str) -> Self {
        let tenant = TenantCreate {
            name: name.into(),
            is_admin: false,
            ssh_key: "ssh-ed25519 AAAA".into(),
            node_quota: None,
            session_lifetime: None,
            session_lifetime_max: None,
        };
        let made = db.transaction(async |mut tx| -> Result<_, DbError> {
            let tenant = tenants::insert_tenant(&mut tx, &tenant, &"hash".into()).await?;
            let mut made = Vec::new();
            for number in 0..NODES {
                let node = NodeCreate {
                    hostname: format!("{name}-{number}.example.org"),
                    ipaddr: format!("{name}-{number}"),
                    comment: None,
                    pool: None,
                    reusable: number % 2 == 0,
                    data: serde_json::Map::default(),
                };
                made.push(
                    nodes::insert_node(&mut tx, &node, NodeState::Unused)
                        .await?
                        .id,
                );
            }
            Ok((tenant.id, made))
        });
        let (tenant_id, nodes) = made.await.unwrap();
        Self {
            db,
            nodes,
            sessions: Vec::new(),
            owners: HashMap::new(),
            tenant_id,
            moved: 0,
        }
    }

    async fn row(&self, id: i64) -> NodeRow {
        let found = self
            .db
            .read(async |mut tx| nodes::find_node(&mut tx, id).await);
        found.await.unwrap().unwrap()
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Apply {
                transition,
                node,
                process,
            } => {
                let id = self.nodes[node % NODES];
                let state = self.row(id).await.state.0;
                // Most steps are allowed in the state, with the lease of the owner. Operators rarely retire nodes.
                let likely = transition % 8 != 0;
                let rare = [
                    Transition::Forget,
                    Transition::TakeDown,
                    Transition::ForbidReuse,
                ];
                let fits = |each: &Transition| {
                    let allowed = each.rule().from.contains(&state) && !rare.contains(each);
                    !OTHERS.contains(each) && (allowed || !likely)
                };
                let choice = Transition::ALL.iter().copied().filter(fits);
                let choice: Vec<Transition> = choice.collect();
                let process = match self.owners.get(&id) {
                    Some(owner) if process % 4 != 0 => owner.clone(),
                    _ => PROCESSES[process % PROCESSES.len()].to_owned(),
                };
                if !choice.is_empty() {
                    let transition = choice[transition / 8 % choice.len()];
                    self.apply(transition, id, &process).await;
                }
            }
            Step::Request { process } => self.request(PROCESSES[process % PROCESSES.len()]).await,
            Step::End { end, session } => {
                if !self.sessions.is_empty() {
                    let session = self.sessions.remove(session % self.sessions.len());
                    self.end(&session, ENDS[end % ENDS.len()]).await;
                }
            }
            Step::Lapse { process } => {
                let lease = PROCESSES[process % PROCESSES.len()];
                let lapsed = self
                    .db
                    .transaction(async |mut tx| leases::renew_lease(&mut tx, lease, -1.0).await);
                lapsed.await.unwrap();
            }
            Step::Reclaim => self.reclaim().await,
        }
    }

    /// Applies a transition, and compares the row and the history with its rule.
    async fn apply(&mut self, transition: Transition, id: i64, process: &str) {
        let rule = transition.rule();
        let (before, owner) = (self.row(id).await, self.owners.get(&id).cloned());
        let data = JsonObject(json!({"by": process}).as_object().unwrap().clone());
        let change = Change {
            lease: Some(process),
            lease_length: Duration::from_mins(1),
            pause: Some(Duration::from_mins(1)),
            data: Some(&data),
            pool: (transition == Transition::Fill).then_some("p"),
            detail: Some("why"),
            ..Change::default()
        };
        let moved = self
            .db
            .transaction(async |mut tx| {
                transitions::apply(&mut tx, transition, &[id], &change).await
            })
            .await
            .unwrap()
            .pop();
        let now = self
            .db
            .read(async |mut tx| old_events::long_ago(&mut tx, 0.0).await);
        let now = now.await.unwrap();
        let free = before.lease_expires_at.is_none_or(|until| until <= now);
        let own = owner.as_deref() == Some(process);
        let allowed = rule.from.contains(&before.state.0)
            && before.retired_at.is_none()
            && match rule.requires {
                LeaseCheck::Any => true,
                LeaseCheck::Own => own,
                LeaseCheck::Free => free,
            }
            && rule
                .held
                .is_none_or(|held| held == before.held_at.is_some())
            && rule
                .reusable
                .is_none_or(|reusable| reusable == before.reusable);
        let context = format!("{transition:?} by {process} of {before:?}, owned by {owner:?}");
        assert_eq!(moved.is_some(), allowed, "{context}");
        let Some(after) = moved else { return };
        self.moved += 1;
        let to = rule.to.unwrap_or(before.state.0);
        assert_eq!(after.state.0, to, "{context}");
        assert_eq!(
            after.retired_at.is_some(),
            to == NodeState::Done,
            "{context}"
        );
        let counted = |counter, old: i32| match counter {
            Counter::Keep => old,
            Counter::Zero => 0,
            Counter::One => 1,
            Counter::Up => old + 1,
            Counter::Down => (old - 1).max(0),
        };
        assert_eq!(
            after.attempts,
            counted(rule.attempts, before.attempts),
            "{context}"
        );
        assert_eq!(
            after.repairs,
            counted(rule.repairs, before.repairs),
            "{context}"
        );
        let soon = |time: Option<Timestamp>| time.is_some_and(|time| time > now);
        match rule.lease {
            Effect::Keep => {
                assert_eq!(after.lease_expires_at, before.lease_expires_at, "{context}");
            }
            Effect::Set => assert!(soon(after.lease_expires_at), "{context}"),
            Effect::End => assert_eq!(after.lease_expires_at, None, "{context}"),
        }
        let taken = rule.lease == Effect::Set;
        assert_eq!(after.fence > before.fence, taken, "{context}");
        match rule.pause {
            Effect::Keep => assert_eq!(after.retry_at, before.retry_at, "{context}"),
            Effect::End => assert_eq!(after.retry_at, None, "{context}"),
            Effect::Set => assert!(soon(after.retry_at), "{context}"),
        }
        let held = match rule.hold {
            Effect::Keep => before.held_at.is_some(),
            Effect::Set => true,
            Effect::End => false,
        };
        assert_eq!(after.held_at.is_some(), held, "{context}");
        assert_eq!(after.reusable, before.reusable && !rule.use_up, "{context}");
        let stays = to == before.state.0;
        assert_eq!(after.state_since == before.state_since, stays, "{context}");
        let pool = match to {
            NodeState::Unused | NodeState::Done => None,
            _ => change.pool.map(str::to_owned).or(before.pool),
        };
        assert_eq!(after.pool, pool, "{context}");
        let last = self
            .db
            .read(async |mut tx| events::last_of_node(&mut tx, id, 1).await);
        let last = last.await.unwrap().remove(0);
        let cause = serde_json::to_value(rule.cause).unwrap();
        assert_eq!(Some(last.cause.as_str()), cause.as_str(), "{context}");
        assert_eq!(
            last.from_state.as_deref(),
            Some(before.state.0.as_str()),
            "{context}"
        );
        assert_eq!(last.to_state.as_deref(), Some(to.as_str()), "{context}");
        match rule.lease {
            Effect::Keep => {}
            Effect::Set => drop(self.owners.insert(id, process.to_owned())),
            Effect::End => drop(self.owners.remove(&id)),
        }
        // The program refuses the session in the same transaction.
        if node_state::is_in_session(before.state.0) && !node_state::is_in_session(to) {
            self.refuse_session_of(id).await;
        }
    }

    async fn refuse_session_of(&mut self, id: i64) {
        let lent = self
            .db
            .read(async |mut tx| sessions::list_nodes_of_active_sessions(&mut tx).await);
        for lent in lent.await.unwrap() {
            if lent.node.id == id {
                let of_node = |session: &SessionRow| session.id == lent.session_id;
                let index = self.sessions.iter().position(of_node).unwrap();
                let session = self.sessions.remove(index);
                self.end(&session, Transition::Refuse).await;
            }
        }
    }

    /// Reserves the ready nodes. Half of the sessions are granted.
    async fn request(&mut self, lease: &str) {
        let tenant_id = self.tenant_id;
        let session = self.db.transaction(async |mut tx| -> Result<_, DbError> {
            let (data, hour) = (JsonObject::default(), Interval(TimeDelta::hours(1)));
            let new = sessions::insert_session(&mut tx, tenant_id, &data, hour, true).await?;
            let session = new.session;
            let ready = nodes::take_ready_nodes(&mut tx, "p", 2).await?;
            let change = Change {
                lease: Some(lease),
                lease_length: Duration::from_mins(1),
                session: Some(&session),
                ..Change::default()
            };
            let reserved = transitions::reserve(&mut tx, &session, &ready, &change).await?;
            let reserved = reserved.unwrap();
            if session.id % 2 == 0 {
                let (deploy, around) = (Transition::Deploy, Around::default());
                let deployed =
                    transitions::apply_to_all(&mut tx, deploy, &reserved, &change, around).await?;
                assert_eq!(deployed.unwrap().len(), ready.len());
                // Nothing is deployed twice.
                let nodes: Vec<i64> = ready.iter().map(|node| node.id).collect();
                let again = transitions::apply(&mut tx, deploy, &nodes, &change).await?;
                assert!(again.is_empty());
            }
            Ok((session, ready))
        });
        let (session, ready) = session.await.unwrap();
        if session.id % 2 != 0 {
            let taken = ready.iter().map(|node| (node.id, lease.to_owned()));
            self.owners.extend(taken);
        }
        self.sessions.push(session);
    }

    async fn end(&self, session: &SessionRow, end: Transition) {
        let ended = self.db.transaction(async |mut tx| -> Result<_, DbError> {
            sessions::retire_session(&mut tx, session.id, None).await?;
            let nodes = sessions::lock_nodes_of_session(&mut tx, session.id).await?;
            let nodes: Vec<i64> = nodes.iter().map(|lent| lent.node.id).collect();
            let change = Change {
                session: Some(session),
                ..Change::default()
            };
            transitions::apply(&mut tx, end, &nodes, &change).await
        });
        ended.await.unwrap();
    }

    async fn reclaim(&mut self) {
        let abandoned = self
            .db
            .read(async |mut tx| sessions::list_abandoned_sessions(&mut tx).await);
        let abandoned = abandoned.await.unwrap();
        let (over, running) = self
            .sessions
            .drain(..)
            .partition(|session| abandoned.contains(&session.id));
        self.sessions = running;
        let over: Vec<SessionRow> = over;
        for session in &over {
            self.end(session, Transition::Abandon).await;
        }
        let reclaimed = self.db.transaction(async |mut tx| -> Result<_, DbError> {
            let orphans = sessions::list_orphans(&mut tx).await?;
            let change = Change::default();
            transitions::apply(&mut tx, Transition::ReleaseOrphan, &orphans, &change).await?;
            for id in operators::list_repairable(&mut tx, 10).await? {
                transitions::apply(&mut tx, Transition::Repair, &[id], &change).await?;
            }
            Ok(orphans)
        });
        for id in reclaimed.await.unwrap() {
            self.owners.remove(&id);
        }
    }

    /// Checks the invariants after a step.
    async fn check(&self) {
        let in_sessions = self
            .db
            .read(async |mut tx| sessions::list_nodes_of_active_sessions(&mut tx).await);
        let in_sessions = in_sessions.await.unwrap();
        for id in &self.nodes {
            let row = self.row(*id).await;
            let shape = Shape {
                state: row.state.0,
                leased: row.lease_expires_at.is_some(),
                retired: row.retired_at.is_some(),
            };
            assert_eq!(shape.contradiction(), None, "{row:?}");
            let lent = in_sessions.iter().filter(|lent| lent.node.id == *id);
            let in_use = node_state::is_in_session(row.state.0);
            let lent = lent.count();
            assert!(lent <= 1 || !in_use, "{row:?} is lent {lent} times");
            assert!(lent == 1 || !in_use, "{row:?} is in use by no session");
        }
    }
}

#[test]
fn transitions_write_what_their_rules_say() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let engines = runtime.block_on(Engines::new());
    for db in engines.both() {
        let number = Cell::new(0);
        let moved = Cell::new(0);
        let mut runner = TestRunner::new(Config {
            cases: 12,
            failure_persistence: None,
            ..Config::default()
        });
        let held = runner.run(&steps(), |steps| {
            number.set(number.get() + 1);
            runtime.block_on(async {
                let mut fixture = Fixture::new(db, &format!("w{}", number.get())).await;
                for step in &steps {
                    fixture.take(step).await;
                    fixture.check().await;
                }
                // The next case must not take nodes of this one.
                for session in fixture.sessions.drain(..).collect::<Vec<_>>() {
                    fixture.end(&session, Transition::Retire).await;
                }
                for id in fixture.nodes.clone() {
                    for transition in [
                        Transition::Release,
                        Transition::LetGoReturned,
                        Transition::TakeDown,
                    ] {
                        fixture.apply(transition, id, "one").await;
                    }
                }
                moved.set(moved.get() + fixture.moved);
            });
            Ok(())
        });
        held.unwrap();
        let moved = moved.get();
        assert!(
            moved > 120,
            "{}: only {moved} transitions were allowed",
            db.engine()
        );
    }
}
