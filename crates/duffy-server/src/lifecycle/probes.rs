//! Watches the ready nodes, so that a dead one is found before a session gets it.
//!
//! Each server of the web API holds SSH connections to the nodes that are lent next. One of the servers logs in to each of
//! the others from time to time. A node that cannot be reached three times leaves its pool.

mod node;
mod reachability;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use self::node::{Node, Shared};
use crate::actor;
use crate::context::Ctx;
use crate::db::nodes::NodeRow;
use crate::db::{DbError, probes};
use crate::lifecycle::nodes::ssh_target;
use crate::nodes::ssh::Target;

/// How often to list the ready nodes, while sessions are requested and otherwise.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// For how long to look often after a change.
const BUSY: Duration = Duration::from_secs(5);
/// The age of a probe, as a part of the interval, after which a process renews it. A process that holds a connection does
/// so first, then no other one has to log in.
const RENEWAL: (f64, std::ops::Range<f64>) = (0.7, 0.8..0.9);

/// Watches the ready nodes until `ctx.stop` is cancelled.
pub async fn run(ctx: Ctx) {
    // Requests of clients must not keep it from the database.
    let watching = watch_until_stopped(ctx.reserved());
    actor::acting(actor::server(), Box::pin(watching)).await;
}

async fn watch_until_stopped(ctx: Ctx) {
    let hold = &ctx.config.ssh.hold;
    let capacity = if hold.enabled {
        hold.max_connections
    } else {
        0
    };
    ctx.ssh.hold_up_to(capacity as usize);
    let mut watches = Watches {
        shared: Arc::new(Shared::new(ctx.clone())),
        running: HashMap::new(),
        tasks: JoinSet::new(),
        changed_at: Instant::now(),
        probed_at: Instant::now(),
    };
    while let Some(looked) = ctx.stop.run_until_cancelled(watches.look(capacity)).await {
        if let Err(error) = looked {
            tracing::warn!(%error, "cannot list the ready nodes");
        }
        let pause = watches.pause().mul_f64(rand::random_range(0.8..1.0));
        tokio::select! {
            () = ctx.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    drop(watches);
    ctx.ssh.hold_up_to(0);
}

/// The watches that run.
struct Watches {
    shared: Arc<Shared>,
    running: HashMap<i64, Watched>,
    tasks: JoinSet<()>,
    changed_at: Instant,
    /// When it last looked for nodes that are due.
    probed_at: Instant,
}

struct Watched {
    target: Target,
    task: AbortHandle,
    hold: bool,
}

impl Watches {
    fn pause(&self) -> Duration {
        if self.changed_at.elapsed() < BUSY {
            LOOK.0
        } else {
            LOOK.1
        }
    }

    /// Begins to watch nodes that became ready or are due, and stops to watch those that are no longer ready.
    async fn look(&mut self, capacity: u32) -> Result<(), DbError> {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            let task = ended.map_or_else(|error| error.id(), |(task, ())| task);
            let ended = self
                .running
                .extract_if(|_, watched| watched.task.id() == task);
            if ended.into_iter().any(|(_, watched)| watched.hold) {
                self.changed_at = Instant::now();
            }
        }
        let next = self.list_next_lent(capacity).await?;
        let wanted: HashSet<i64> = next.iter().map(|(node, _)| node.id).collect();
        self.running.retain(|id, watched| {
            let stays = !watched.hold || wanted.contains(id);
            if !stays {
                watched.task.abort();
                // Another process may have lent it. Look again soon, to close the connection.
                self.changed_at = Instant::now();
            }
            stays
        });
        let ctx = self.shared.ctx.clone();
        ctx.ssh.retain_held(next.iter().map(|(_, target)| target));
        for (node, target) in next {
            if ctx.ssh.can_hold(&target).await {
                self.watch(node, target, true);
            }
        }
        if self.probed_at.elapsed() >= LOOK.1.mul_f64(0.8) {
            self.probed_at = Instant::now();
            for node in self.claim_due().await? {
                if let Some(target) = ssh_target(&node) {
                    self.watch(node, target, false);
                }
            }
        }
        let probed = self.running.keys().copied().collect();
        self.shared.reachability().tidy(&probed, Instant::now());
        Ok(())
    }

    async fn list_next_lent(&self, capacity: u32) -> Result<Vec<(NodeRow, Target)>, DbError> {
        if capacity == 0 {
            return Ok(Vec::new());
        }
        let list = async |mut tx| probes::list_next_lent(&mut tx, capacity).await;
        let nodes = self.shared.ctx.db.read(list).await?;
        let with_target = |node: NodeRow| ssh_target(&node).map(|target| (node, target));
        Ok(nodes.into_iter().filter_map(with_target).collect())
    }

    /// Returns nodes that nobody has probed for a while, and that this process holds no connection to.
    async fn claim_due(&self) -> Result<Vec<NodeRow>, DbError> {
        let ctx = &self.shared.ctx;
        let interval = ctx.config.ssh.probe_interval;
        let (ours, others) = (
            interval.mul_f64(RENEWAL.0),
            interval.mul_f64(rand::random_range(RENEWAL.1)),
        );
        let per_second = f64::from(ctx.config.ssh.hold.logins_per_second);
        let most = (per_second * LOOK.1.as_secs_f64()) as usize;
        let probing = self
            .running
            .values()
            .filter(|watched| !watched.hold)
            .count();
        let most = most.saturating_sub(probing);
        if most == 0 {
            tracing::warn!(
                probing,
                "not all ready nodes can be probed within ssh.probe-interval; raise it or ssh.hold.logins-per-second"
            );
            return Ok(Vec::new());
        }
        let limit = u32::try_from(most).unwrap_or(u32::MAX);
        let list = async |mut tx| probes::list_due(&mut tx, ours, limit).await;
        let due = ctx.db.read(list).await?;
        let is_held = |id: &i64| {
            let watched = self.running.get(id).filter(|watched| watched.hold);
            watched.is_some_and(|watched| ctx.ssh.held_connection(&watched.target).is_some())
        };
        let (held, rest): (Vec<_>, Vec<_>) = due.into_iter().partition(is_held);
        let (held, rest) = (&held, &rest);
        if !held.is_empty() {
            let claim = async |mut tx| probes::claim_due(&mut tx, ours, held).await;
            ctx.db.transaction::<_, DbError, _>(claim).await?;
        }
        if rest.is_empty() {
            return Ok(Vec::new());
        }
        let claim = async |mut tx| probes::claim_due(&mut tx, others, rest).await;
        ctx.db.transaction(claim).await
    }

    fn watch(&mut self, node: NodeRow, target: Target, hold: bool) {
        let id = node.id;
        match self.running.get(&id) {
            Some(watched) if watched.target == target => return,
            // The node was used meanwhile.
            Some(former) => former.task.abort(),
            None => {}
        }
        if hold {
            self.changed_at = Instant::now();
        }
        let node = Node {
            id,
            fence: node.fence,
            pool: node.pool,
        };
        let work = node::watch(Arc::clone(&self.shared), node, target.clone(), hold);
        let task = self.tasks.spawn(actor::carry(work));
        let watched = Watched { target, task, hold };
        self.running.insert(id, watched);
    }
}
