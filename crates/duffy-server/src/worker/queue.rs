//! Claiming waiting nodes, and the work on them.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use duffy_api::NodeState;
use serde_json::Value;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Mechanisms;
use super::slots::Slots;
use crate::actor;
use crate::context::Ctx;
use crate::db::DbError;
use crate::db::leases::{self, Portion, Waiting};
use crate::db::nodes::NodeRow;
use crate::lifecycle::work::job::Job;
use crate::lifecycle::work::lease::{LeaseKeeper, new_lease};
use crate::lifecycle::work::{backoff, deprovision, provision};
use crate::nodes::mechanism::{Mechanism, MechanismError, MechanismNode};

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

/// What is claimed at once, and by whom it is done.
struct Claim {
    state: NodeState,
    pool: String,
    configured: bool,
    mechanism: Arc<dyn Mechanism>,
    keeper: LeaseKeeper,
    nodes: Vec<NodeRow>,
}

impl Queue {
    pub(super) fn new(ctx: Ctx, mechanisms: Mechanisms, concurrency: usize) -> Self {
        let stop = CancellationToken::new();
        Self {
            slots: Slots::new(concurrency, mechanisms.len() > 1),
            ctx,
            mechanisms,
            running: JoinSet::new(),
            stop,
            served: None,
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns when some work has ended; never, while there is none.
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

    /// Tells all work to stop and hand its lease back.
    pub(super) fn stop_work(&self) {
        self.stop.cancel();
    }

    /// Claims what waits, as far as there is room, and starts on it. False when the database
    /// did not let it.
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

    /// One claim of each pool in turn, so that a large pool does not keep the others waiting.
    async fn claim_all(&mut self) -> Result<(), DbError> {
        let mut waiting = self
            .ctx
            .db
            .read(async |mut tx| leases::list_waiting(&mut tx).await)
            .await?;
        // In an order of its own: each engine, and each collation, has another one.
        waiting.sort_by_key(order);
        let mut waiting = VecDeque::from(waiting);
        // Behind the one that was served last: else the first pools would get every free slot.
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

    /// Starts on one claim. False when there is, or should be, no other one.
    async fn serve(&mut self, group: &Waiting) -> Result<bool, DbError> {
        let state = group.state.0;
        let Some(pool) = &group.pool else {
            self.restore_pools(group).await?;
            return Ok(false);
        };
        let known = self.mechanisms.get(pool);
        let configured = known.is_some();
        let (mechanism, parallel) = match known {
            Some(found) => found,
            // Another worker may have another configuration, and know the pool.
            None if !group.overdue && !group.held => return Ok(false),
            None => (
                Arc::new(UnknownPool(pool.clone())) as Arc<dyn Mechanism>,
                true,
            ),
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
        self.start(Claim {
            state,
            pool: pool.clone(),
            configured,
            mechanism,
            keeper,
            nodes,
        });
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

    fn start(&mut self, claim: Claim) {
        let (ctx, stop) = (self.ctx.clone(), self.stop.child_token());
        let (pool, state) = (claim.pool.clone(), claim.state);
        let task = self.running.spawn(actor::carry(async move {
            let Claim {
                state,
                pool,
                configured,
                mechanism,
                keeper,
                nodes,
            } = claim;
            let begun = Instant::now();
            let ids: Vec<i64> = nodes.iter().map(|node| node.id).collect();
            tracing::debug!(pool.name = pool, nodes = ?ids, %state, "claimed");
            let work = Job {
                mechanism: &*mechanism,
                pool: &pool,
                state,
                begun,
                configured,
                keeper: &keeper,
                stop: &stop,
                jitter: rand::random(),
            };
            let result = async {
                if state == NodeState::Provisioning {
                    provision::provision_nodes(&ctx, &work, nodes).await
                } else {
                    deprovision::deprovision_nodes(&ctx, &work, nodes).await
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
        }));
        self.slots.take(task.id(), pool, state);
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

/// Stands for the mechanism of a pool that the configuration does not have.
#[derive(Debug)]
struct UnknownPool(String);

impl UnknownPool {
    fn refuse(&self) -> MechanismError {
        let pool = &self.0;
        MechanismError::Setup {
            detail: format!("pool '{pool}' not found; add it to nodepools.concrete"),
        }
    }
}

#[async_trait]
impl Mechanism for UnknownPool {
    async fn provision(
        &self,
        _nodes: &[MechanismNode],
        _stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        Err(self.refuse())
    }

    async fn deprovision(
        &self,
        _nodes: &[MechanismNode],
        _stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        Err(self.refuse())
    }

    fn check(&self) -> Result<(), MechanismError> {
        Err(self.refuse())
    }
}
