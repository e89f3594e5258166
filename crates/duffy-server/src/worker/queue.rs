//! Claims waiting nodes, and works on them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use duffy_api::NodeState;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::slots::Slots;
use crate::actor;
use crate::context::Ctx;
use crate::db::DbError;
use crate::db::leases::{self, Portion, Waiting};
use crate::db::nodes::NodeRow;
use crate::db::transitions::lease_of_node;
use crate::lifecycle::work::job::Job;
use crate::lifecycle::work::lease::{LeaseKeeper, new_lease};
use crate::lifecycle::work::{backoff, deprovision, provision};
use crate::nodes::mechanisms::{Mechanism, Mechanisms};

/// Work in progress, up to a limit.
#[derive(Debug)]
pub(super) struct Queue {
    ctx: Ctx,
    mechanisms: Mechanisms,
    slots: Slots,
    /// The value of a task is whether to look what waits after it.
    running: JoinSet<bool>,
    stop: CancellationToken,
    /// The group that got a slot last.
    served: Option<(NodeState, Option<String>)>,
    /// What waited when it was listed last, without what was claimed since then.
    waiting: Vec<Waiting>,
    /// When that was; `None` if it must be listed before the next claim.
    listed: Option<Instant>,
    /// When it must be listed again, although nothing says that it changed.
    look_at: Instant,
}

/// How long claims use one list of what waits. Listing reads all nodes that wait. What the list does not have yet, for
/// example a pool that another worker found to be failing, waits for the next one.
const LIST_VALID: Duration = Duration::from_millis(100);

fn order(group: &Waiting) -> (NodeState, Option<String>) {
    (group.state.0, group.pool.clone())
}

/// Nodes that were claimed under one lease.
struct Claim {
    state: NodeState,
    pool: String,
    mechanism: Arc<Mechanism>,
    keeper: LeaseKeeper,
    nodes: Vec<NodeRow>,
}

impl Claim {
    /// Provisions or deprovisions the nodes. Returns whether that failed for one of them.
    async fn work(self, ctx: Ctx, stop: CancellationToken) -> bool {
        let (pool, state, keeper) = (self.pool.as_str(), self.state, &self.keeper);
        let ids: Vec<i64> = self.nodes.iter().map(|node| node.id).collect();
        tracing::debug!(pool.name = pool, nodes = ?ids, %state, "claimed");
        let failed = AtomicBool::new(false);
        let job = Job {
            mechanism: &self.mechanism,
            failed: &failed,
            pool,
            state,
            begun: Instant::now(),
            configured: !matches!(*self.mechanism, Mechanism::Unknown(_)),
            keeper,
            stop: &stop,
            jitter: rand::random(),
        };
        let result = async {
            if state == NodeState::Provisioning {
                provision::provision_nodes(&ctx, &job, self.nodes).await
            } else {
                deprovision::deprovision_nodes(&ctx, &job, self.nodes).await
            }
        };
        tokio::pin!(result);
        let result = tokio::select! {
            result = &mut result => result,
            // Another process may work on the nodes, so the work here must end.
            () = keeper.lost().cancelled() => {
                stop.cancel();
                result.await
            }
        };
        if let Err(error) = result {
            tracing::error!(
                pool.name = pool, nodes = ?ids, %error,
                "cannot write what became of the nodes; their lease will lapse"
            );
            return true;
        }
        failed.load(Ordering::Relaxed)
    }
}

impl Queue {
    pub(super) fn new(ctx: Ctx, mechanisms: Mechanisms, concurrency: usize) -> Self {
        Self {
            slots: Slots::new(concurrency, mechanisms.pools() > 1),
            ctx,
            mechanisms,
            running: JoinSet::new(),
            stop: CancellationToken::new(),
            served: None,
            waiting: Vec::new(),
            listed: None,
            look_at: Instant::now(),
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns when some work has ended. Does not return while no work runs.
    pub(super) async fn ended(&mut self) {
        match self.running.join_next_with_id().await {
            Some(ended) => self.note_end(ended),
            None => std::future::pending().await,
        }
    }

    /// Returns when all work has ended.
    pub(super) async fn drain(&mut self) {
        while let Some(ended) = self.running.join_next_with_id().await {
            self.note_end(ended);
        }
    }

    /// Makes all work stop and hand its lease back.
    pub(super) fn stop_work(&self) {
        self.stop.cancel();
    }

    /// Makes the next [`Queue::dispatch`] look what waits.
    pub(super) fn look_again(&mut self) {
        self.listed = None;
    }

    /// The time until what waits must be listed again, although nothing says that it changed.
    pub(super) fn next_look(&self) -> Duration {
        self.look_at.saturating_duration_since(Instant::now())
    }

    /// Claims what waits, as far as slots are free, and starts on it. False if the database refused. Looks again what
    /// waits at the latest after the interval that `poll` returns for this result.
    pub(super) async fn dispatch(&mut self, poll: impl Fn(bool) -> Duration) -> bool {
        while let Some(ended) = self.running.try_join_next_with_id() {
            self.note_end(ended);
        }
        if self.look_at <= Instant::now() {
            self.look_again();
            self.look_at = Instant::now() + poll(true);
        }
        let nothing_waits = self.listed.is_some() && self.waiting.is_empty();
        if nothing_waits || self.slots.are_taken() {
            return true;
        }
        let claimed = self.claim_all().await;
        self.slots.free_reserved();
        let Err(error) = claimed else {
            return true;
        };
        tracing::error!(%error, "cannot claim nodes");
        self.look_again();
        self.look_at = Instant::now() + poll(false);
        false
    }

    /// Claims nodes until no slot is free for a pool whose nodes wait.
    async fn claim_all(&mut self) -> Result<(), DbError> {
        let is_recent = |listed: Instant| listed.elapsed() < LIST_VALID;
        if !self.listed.is_some_and(is_recent) {
            self.list_waiting().await?;
        }
        loop {
            let shares = self.share_slots();
            if shares.is_empty() {
                return Ok(());
            }
            for (index, nodes) in shares {
                let Err(error) = self.serve(index, nodes).await else {
                    continue;
                };
                self.waiting[index].quantity = 0;
                if matches!(error, DbError::Unavailable(_)) {
                    return Err(error);
                }
                // The nodes of other pools do not wait for these.
                let pool = self.waiting[index].pool.as_deref().unwrap_or_default();
                tracing::error!(pool.name = pool, %error, "cannot claim nodes of this pool");
            }
            self.slots.free_reserved();
            self.waiting.retain(|group| group.quantity > 0);
        }
    }

    async fn list_waiting(&mut self) -> Result<(), DbError> {
        let list = async |mut tx| leases::list_waiting(&mut tx).await;
        self.waiting = self.ctx.db.read(list).await?;
        // Sorted here, because each engine and each collation has another order.
        self.waiting.sort_by_key(order);
        self.listed = Some(Instant::now());
        Ok(())
    }

    /// Reserves slots, one for each group in turn, so that a large pool does not keep the others waiting. Returns the
    /// groups, and for how many nodes of each a slot is reserved.
    fn share_slots(&mut self) -> Vec<(usize, u32)> {
        // Starts after the group that was served last; otherwise the first pools would get every free slot.
        let served = |group: &Waiting| Some(order(group)) <= self.served;
        let behind = self
            .waiting
            .iter()
            .take_while(|group| served(group))
            .count();
        let mut turns: VecDeque<usize> = (0..self.waiting.len()).collect();
        turns.rotate_left(behind);
        let mut shares: Vec<(usize, u32)> = Vec::new();
        while let Some(index) = turns.pop_front() {
            let group = &self.waiting[index];
            let share = shares.iter().position(|share| share.0 == index);
            let reserved = share.map_or(0, |share| shares[share].1);
            let wanted = match &group.pool {
                None => 1,
                Some(_) if self.takes_one(group) => 1,
                Some(_) => group.quantity,
            };
            if i64::from(reserved) >= wanted {
                continue;
            }
            if let Some(pool) = &group.pool
                && !self.slots.reserve(pool, group.state.0)
            {
                continue;
            }
            self.served = Some(order(group));
            match share {
                Some(share) => shares[share].1 += 1,
                None => shares.push((index, 1)),
            }
            turns.push_back(index);
        }
        shares
    }

    /// Whether one claim of the group is enough: for a batch, or for the one try of a failing mechanism.
    fn takes_one(&self, group: &Waiting) -> bool {
        let pool = group.pool.as_deref().unwrap_or_default();
        let is_batch = self.mechanisms.get(pool).is_some_and(|found| !found.1);
        is_batch || group.failing
    }

    /// Claims up to this number of nodes of a group, and starts the work on them. Counts them off the group.
    async fn serve(&mut self, index: usize, nodes: u32) -> Result<(), DbError> {
        let group = self.waiting[index].clone();
        let Some(pool) = &group.pool else {
            self.waiting[index].quantity = 0;
            return self.restore_pools(&group).await;
        };
        let takes_one = self.takes_one(&group);
        let mechanism = match self.mechanisms.get(pool) {
            Some((mechanism, _)) => mechanism,
            // Another worker may have another configuration, and know the pool.
            None if !group.overdue && !group.held => {
                self.waiting[index].quantity = 0;
                return Ok(());
            }
            None => Arc::new(Mechanism::Unknown(pool.clone())),
        };
        let portion = match (takes_one, group.failing) {
            (false, _) => Portion::Each(nodes),
            (true, true) => Portion::One,
            (true, false) => Portion::Batch,
        };
        let (lease, taken) = (new_lease(), Instant::now());
        let claimed = self.claim(&group, portion, &lease).await?;
        let left = group.quantity - i64::try_from(claimed.len()).unwrap_or(i64::MAX);
        // After a batch and after a try, the next look says whether there is another.
        let is_over = claimed.is_empty() || takes_one;
        self.waiting[index].quantity = if is_over { 0 } else { left };
        if takes_one {
            if !claimed.is_empty() {
                self.start(&group, pool, &mechanism, lease, claimed, taken);
            }
            return Ok(());
        }
        for node in claimed {
            let lease = lease_of_node(&lease, node.id);
            self.start(&group, pool, &mechanism, lease, vec![node], taken);
        }
        Ok(())
    }

    /// Starts the work on nodes that were claimed under one lease.
    fn start(
        &mut self,
        group: &Waiting,
        pool: &str,
        mechanism: &Arc<Mechanism>,
        lease: String,
        nodes: Vec<NodeRow>,
        taken: Instant,
    ) {
        let state = group.state.0;
        let claim = Claim {
            state,
            pool: pool.to_owned(),
            mechanism: Arc::clone(mechanism),
            keeper: LeaseKeeper::start(&self.ctx, lease, nodes.len(), taken),
            nodes,
        };
        // The next batch or try follows this one, and a pool whose mechanism fails gets one try at a time.
        let takes_one = self.takes_one(group);
        let work = claim.work(self.ctx.clone(), self.stop.child_token());
        let work = async move { work.await || takes_one };
        let task = self.running.spawn(actor::carry(work));
        self.slots.take(task.id(), pool, state);
    }

    async fn claim(
        &self,
        group: &Waiting,
        portion: Portion,
        lease: &str,
    ) -> Result<Vec<NodeRow>, DbError> {
        let ctx = &self.ctx;
        ctx.db
            .transaction(async |mut tx| {
                if group.failing
                    && let Some(pool) = &group.pool
                    && !backoff::take_try(ctx, &mut tx, pool, group.state.0).await?
                {
                    return Ok(Vec::new());
                }
                leases::claim_nodes(&mut tx, group, portion, lease, ctx.config.tasks.lease).await
            })
            .await
    }

    async fn restore_pools(&self, group: &Waiting) -> Result<(), DbError> {
        let lease = new_lease();
        let nodes = self.claim(group, Portion::Batch, &lease).await?;
        deprovision::restore_pools(&self.ctx, nodes, &lease).await
    }

    fn note_end(&mut self, ended: Result<(Id, bool), JoinError>) {
        let (task, look) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "work on nodes died; their lease will lapse");
                (error.id(), true)
            }
        };
        if look {
            self.look_again();
        }
        self.slots.free(task);
    }
}
