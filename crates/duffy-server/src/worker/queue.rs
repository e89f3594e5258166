//! Claims waiting nodes, and works on them.

use std::collections::VecDeque;
use std::sync::Arc;

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
    running: JoinSet<()>,
    stop: CancellationToken,
    /// What was claimed last.
    served: Option<(NodeState, Option<String>)>,
}

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
    /// Provisions or deprovisions the nodes.
    async fn work(self, ctx: Ctx, stop: CancellationToken) {
        let (pool, state, keeper) = (self.pool.as_str(), self.state, &self.keeper);
        let ids: Vec<i64> = self.nodes.iter().map(|node| node.id).collect();
        tracing::debug!(pool.name = pool, nodes = ?ids, %state, "claimed");
        let job = Job {
            mechanism: &self.mechanism,
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
        }
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

    /// Claims what waits, as far as slots are free, and starts on it. False if the database
    /// refused.
    pub(super) async fn dispatch(&mut self) -> bool {
        while let Some(ended) = self.running.try_join_next_with_id() {
            self.note_end(ended);
        }
        if self.slots.are_taken() {
            return true;
        }
        match self.claim_all().await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "cannot claim nodes");
                false
            }
        }
    }

    /// Makes one claim of each pool in turn, so that a large pool does not keep the others waiting.
    async fn claim_all(&mut self) -> Result<(), DbError> {
        let mut waiting = self
            .ctx
            .db
            .read(async |mut tx| leases::list_waiting(&mut tx).await)
            .await?;
        // Sorted here, because each engine and each collation has another order.
        waiting.sort_by_key(order);
        let mut waiting = VecDeque::from(waiting);
        // Starts after the group that was served last; otherwise the first pools would get every free slot.
        let served = |group: &Waiting| Some(order(group)) <= self.served;
        let behind = waiting.iter().take_while(|group| served(group)).count();
        waiting.rotate_left(behind);
        while let Some(group) = waiting.pop_front() {
            if let Some(pool) = &group.pool
                && !self.slots.admit(pool, group.state.0)
            {
                continue;
            }
            match self.serve(&group).await {
                Ok(true) => waiting.push_back(group),
                Ok(false) => {}
                Err(error @ DbError::Unavailable(_)) => return Err(error),
                // The nodes of other pools do not wait for these.
                Err(error) => {
                    let pool = group.pool.unwrap_or_default();
                    tracing::error!(pool.name = pool, %error, "cannot claim nodes of this pool");
                }
            }
        }
        Ok(())
    }

    /// Starts on one claim. False if the group must wait for its next claim.
    async fn serve(&mut self, group: &Waiting) -> Result<bool, DbError> {
        let state = group.state.0;
        let Some(pool) = &group.pool else {
            self.restore_pools(group).await?;
            return Ok(false);
        };
        let (mechanism, parallel) = match self.mechanisms.get(pool) {
            Some(found) => found,
            // Another worker may have another configuration, and know the pool.
            None if !group.overdue && !group.held => return Ok(false),
            None => (Arc::new(Mechanism::Unknown(pool.clone())), true),
        };
        let portion = if parallel || group.failing {
            Portion::One
        } else {
            Portion::Batch
        };
        let (lease, taken) = (new_lease(), Instant::now());
        let nodes = self.claim(group, portion, &lease).await?;
        if nodes.is_empty() {
            return Ok(false);
        }
        let keeper = LeaseKeeper::start(&self.ctx, lease, nodes.len(), taken);
        self.served = Some((state, Some(pool.clone())));
        let claim = Claim {
            state,
            pool: pool.clone(),
            mechanism,
            keeper,
            nodes,
        };
        let work = claim.work(self.ctx.clone(), self.stop.child_token());
        let task = self.running.spawn(actor::carry(work));
        self.slots.take(task.id(), pool.clone(), state);
        Ok(parallel && !group.failing)
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

    fn note_end(&mut self, ended: Result<(Id, ()), JoinError>) {
        let task = match ended {
            Ok((task, ())) => task,
            Err(error) => {
                tracing::error!(%error, "work on nodes died; their lease will lapse");
                error.id()
            }
        };
        self.slots.free(task);
    }
}
