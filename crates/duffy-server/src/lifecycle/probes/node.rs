//! Watches one ready node: logs in, holds the connection if it is to be held, and takes the node out of its pool when it
//! cannot be reached.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duffy_api::NodeState;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::reachability::{Fault, Reachability, blame, is_most};
use crate::context::Ctx;
use crate::db::nodes::NodeRow;
use crate::db::transitions::{self, Change};
use crate::db::{DbError, Tx, nodes, operators, probes};
use crate::lifecycle::nodes::ssh_target;
use crate::lifecycle::pools::repair;
use crate::lifecycle::rules;
use crate::node_state::Transition;
use crate::nodes::ssh::{HoldEnd, SshError, Target};

/// The pauses before the second and the third try to reach a node, in seconds.
const PAUSES: [f64; 2] = [3.0, 7.0];
/// The pause before the next tries if Duffy itself seems to be at fault, in seconds.
const OWN_FAULT_PAUSE: f64 = 30.0;
/// How long a node may take to answer a keepalive message.
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(10);
/// How often to say in the log that Duffy itself seems to be at fault.
const COMPLAINT: Duration = Duration::from_mins(1);
/// How many other nodes to ask before a node leaves its pool.
const OTHERS: u32 = 3;

/// What the watches of all nodes share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ctx: Ctx,
    reachability: Mutex<Reachability>,
    /// The logins to hold connections, and those to probe nodes. Neither waits for the other.
    logins: [tokio::sync::Mutex<Interval>; 2],
    complained_at: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn new(ctx: Ctx) -> Self {
        let per_second = f64::from(ctx.config.ssh.hold.logins_per_second);
        let logins = || {
            let mut logins = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
            logins.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::sync::Mutex::new(logins)
        };
        Self {
            logins: [logins(), logins()],
            ctx,
            reachability: Mutex::default(),
            complained_at: Mutex::default(),
        }
    }

    pub(super) fn reachability(&self) -> MutexGuard<'_, Reachability> {
        self.reachability
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs in when there is a turn for it.
    async fn log_in(&self, target: &Target, hold: bool) -> Result<(), SshError> {
        self.logins[usize::from(hold)].lock().await.tick().await;
        self.ctx.ssh.log_in(target, hold).await
    }

    fn complain(&self, lost: usize) {
        let mut complained_at = self
            .complained_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if complained_at.is_none_or(|at| at.elapsed() >= COMPLAINT) {
            *complained_at = Some(Instant::now());
            tracing::error!(
                lost,
                "most ready nodes cannot be reached, so the fault is probably not theirs, and they stay in their pools; \
                 check the network and the SSH key of Duffy"
            );
        }
    }
}

/// A ready node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: i64,
    /// Changes when a session takes the node.
    pub(super) fence: i64,
    pub(super) pool: Option<String>,
}

/// Watches a node until it is no longer Duffy's turn. With `hold`, holds a connection to it; otherwise logs in once.
pub(super) async fn watch(shared: Arc<Shared>, node: Node, target: Target, hold: bool) {
    let watch = Watch {
        shared: &shared,
        node: &node,
        target: &target,
        hold,
    };
    let result = if hold {
        watch.hold().await
    } else {
        Box::pin(watch.reach()).await.map(drop)
    };
    if let Err(error) = result {
        tracing::warn!(node.id, %error, "cannot watch a ready node");
    }
}

/// Whether a node is reached, or belongs to somebody else now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    Yes,
    NotReady,
}

struct Watch<'a> {
    shared: &'a Shared,
    node: &'a Node,
    target: &'a Target,
    hold: bool,
}

impl Watch<'_> {
    /// Holds a connection to the node until a command takes it.
    async fn hold(&self) -> Result<(), DbError> {
        let ctx = &self.shared.ctx;
        loop {
            // Provisioning has opened it already, if it ran in this process.
            let mut held = ctx.ssh.held_connection(self.target);
            if held.is_none() {
                // Boxed, because it is large and the connection is open for much longer.
                if Box::pin(self.reach()).await? == Reached::NotReady {
                    return Ok(());
                }
                held = ctx.ssh.held_connection(self.target);
                // A session may have taken the node during the login.
                if held.is_some() && !Box::pin(self.is_still_ready()).await? {
                    ctx.ssh.let_go(self.target);
                }
            }
            let Some(held) = held else {
                return Ok(());
            };
            let keepalive = ctx.config.ssh.hold.keepalive;
            let end = loop {
                let pause = jittered(keepalive.as_secs_f64());
                if let Some(end) = held.check_after(pause, KEEPALIVE_PATIENCE).await {
                    break end;
                }
                self.shared.reachability().forget(self.node.id);
            };
            if end == HoldEnd::Taken {
                self.shared.reachability().forget(self.node.id);
                return Ok(());
            }
            tracing::debug!(self.node.id, "lost the connection to a ready node");
            // Some nodes close each connection soon after the login.
            tokio::time::sleep(jittered(PAUSES[0] / 3.0)).await;
        }
    }

    /// Logs in to the node. When three tries fail, takes it out of its pool, unless most nodes are lost.
    async fn reach(&self) -> Result<Reached, DbError> {
        loop {
            let mut pauses = PAUSES.iter();
            let error = loop {
                let Err(error) = self.shared.log_in(self.target, self.hold).await else {
                    self.shared.reachability().forget(self.node.id);
                    return Ok(Reached::Yes);
                };
                tracing::info!(node.id = self.node.id, %error, "cannot reach a ready node");
                self.shared.reachability().note_loss(self.node.id);
                if !self.is_still_ready().await? {
                    self.shared.reachability().forget(self.node.id);
                    return Ok(Reached::NotReady);
                }
                match pauses.next() {
                    Some(pause) => tokio::time::sleep(jittered(*pause)).await,
                    None => break error,
                }
            };
            if !error.is_own_fault() && self.is_to_blame().await? {
                self.shared.reachability().forget(self.node.id);
                if self.fail(&error).await? {
                    let now = Instant::now();
                    self.shared.reachability().note_failure(self.node.id, now);
                }
                return Ok(Reached::NotReady);
            }
            tokio::time::sleep(jittered(OWN_FAULT_PAUSE)).await;
        }
    }

    /// Whether other nodes can be reached, as far as there are any.
    async fn is_to_blame(&self) -> Result<bool, DbError> {
        let lost = &self.shared.reachability().lost();
        let read = async |mut tx| {
            let others = probes::count_others(&mut tx, lost).await?;
            let asked = probes::list_others(&mut tx, lost, OTHERS).await?;
            Ok((others, asked))
        };
        let (others, asked): (i64, Vec<NodeRow>) =
            self.shared.ctx.db.read::<_, DbError, _>(read).await?;
        let others = usize::try_from(others).unwrap_or(0);
        let is_node = match blame(lost.len(), others) {
            Fault::Node => true,
            Fault::Own => false,
            Fault::AskOthers => {
                let targets: Vec<_> = asked.iter().filter_map(ssh_target).collect();
                let logins = targets
                    .iter()
                    .map(|target| self.shared.log_in(target, false));
                let results = futures::future::join_all(logins).await;
                let answered = results.iter().filter(|result| result.is_ok()).count();
                is_most(answered, asked.len())
            }
        };
        if !is_node {
            self.shared.complain(lost.len());
        }
        Ok(is_node)
    }

    async fn is_still_ready(&self) -> Result<bool, DbError> {
        let find = async |mut tx| nodes::find_node(&mut tx, self.node.id).await;
        let found = self.shared.ctx.db.read(find).await?;
        Ok(found.is_some_and(|found| self.is_same(&found)))
    }

    /// Whether nobody has used the node since it was listed.
    fn is_same(&self, now: &NodeRow) -> bool {
        now.state.0 == NodeState::Ready && now.fence == self.node.fence
    }

    /// Takes the node out of its pool. False if it is not ready any more.
    async fn fail(&self, error: &SshError) -> Result<bool, DbError> {
        let ctx = &self.shared.ctx;
        let detail = format!("ready node cannot be reached: {error}");
        let detail = &detail;
        let write = async |mut tx: Tx| {
            let current = operators::lock_node(&mut tx, self.node.id).await?;
            let Some(current) = current.filter(|current| self.is_same(current)) else {
                return Ok(false);
            };
            let mut data = current.data.clone();
            rules::record_error(&mut data.0, ctx.clock.now(), detail, None);
            let change = Change {
                pause: repair::pause_before(&ctx.config.tasks, current.repairs),
                data: Some(&data),
                detail: Some(detail),
                ..Change::default()
            };
            let failed =
                transitions::apply_to(&mut tx, Transition::FailProbe, &current, &change).await?;
            Ok(failed.is_some())
        };
        let failed = ctx.db.transaction::<_, DbError, _>(write).await?;
        if failed {
            let pool = self.node.pool.as_deref().unwrap_or_default();
            tracing::error!(node.id = self.node.id, pool.name = pool, "{detail}");
        }
        Ok(failed)
    }
}

/// A random time around so many seconds.
fn jittered(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds * rand::random_range(0.8..1.2))
}
