//! Claiming waiting nodes, and the work on them.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use duffy_api::NodeState;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Mechanisms;
use crate::context::Ctx;
use crate::db::DbError;
use crate::db::leases::{self, Waiting};
use crate::db::nodes::NodeRow;
use crate::lifecycle::lease::{LeaseKeeper, Work, new_lease};
use crate::lifecycle::{deprovision, provision};
use crate::nodes::mechanism::{Mechanism, MechanismError, MechanismNode};

/// Work in progress, up to a limit.
#[derive(Debug)]
pub(super) struct Queue {
    ctx: Ctx,
    mechanisms: Mechanisms,
    concurrency: usize,
    running: JoinSet<()>,
    stop: CancellationToken,
}

/// What is claimed at once, and by whom it is done.
struct Claim {
    state: NodeState,
    pool: String,
    mechanism: Arc<dyn Mechanism>,
    lease: String,
    nodes: Vec<NodeRow>,
}

impl Queue {
    pub(super) fn new(ctx: Ctx, mechanisms: Mechanisms, concurrency: usize) -> Self {
        let stop = CancellationToken::new();
        Self {
            ctx,
            mechanisms,
            concurrency,
            running: JoinSet::new(),
            stop,
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns when some work has ended; never, while there is none.
    pub(super) async fn ended(&mut self) {
        if self.running.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when all work has ended.
    pub(super) async fn drain(&mut self) {
        while self.running.join_next().await.is_some() {}
    }

    /// Tells all work to stop and hand its lease back.
    pub(super) fn stop_work(&self) {
        self.stop.cancel();
    }

    /// Claims what waits, as far as there is room, and starts on it. False when the database
    /// did not let it.
    pub(super) async fn dispatch(&mut self) -> bool {
        while self.running.try_join_next().is_some() {}
        if self.running.len() >= self.concurrency {
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
        let waiting = self
            .ctx
            .db
            .read(|mut tx| async move {
                let waiting = leases::list_waiting(&mut tx).await?;
                Ok::<_, DbError>((tx, waiting))
            })
            .await?;
        let mut waiting = VecDeque::from(waiting);
        while self.running.len() < self.concurrency {
            let Some(group) = waiting.pop_front() else {
                break;
            };
            let Some(pool) = &group.pool else {
                self.restore_pools(group.state.0).await?;
                continue;
            };
            let (mechanism, parallel) = match self.mechanisms.get(pool) {
                Some(found) => found,
                None => (
                    Arc::new(UnknownPool(pool.clone())) as Arc<dyn Mechanism>,
                    true,
                ),
            };
            let limit = if parallel { 1 } else { i64::from(i32::MAX) };
            let lease = new_lease();
            let nodes = self.claim(group.state.0, Some(pool), limit, &lease).await?;
            if nodes.is_empty() {
                continue;
            }
            let state = group.state.0;
            self.start(Claim {
                state,
                pool: pool.clone(),
                mechanism,
                lease,
                nodes,
            });
            if parallel {
                waiting.push_back(Waiting {
                    quantity: group.quantity - 1,
                    ..group
                });
            }
        }
        Ok(())
    }

    async fn claim(
        &self,
        state: NodeState,
        pool: Option<&str>,
        limit: i64,
        lease: &str,
    ) -> Result<Vec<NodeRow>, DbError> {
        let seconds = self.ctx.policy.lease.as_secs_f64();
        self.ctx
            .db
            .transaction(|mut tx| async move {
                let nodes =
                    leases::claim_nodes(&mut tx, state, pool, limit, lease, seconds).await?;
                Ok((tx, nodes))
            })
            .await
    }

    async fn restore_pools(&self, state: NodeState) -> Result<(), DbError> {
        let lease = new_lease();
        let nodes = self.claim(state, None, i64::from(i32::MAX), &lease).await?;
        deprovision::restore_pools(&self.ctx, nodes, &lease).await
    }

    fn start(&mut self, claim: Claim) {
        let ctx = self.ctx.clone();
        let stop = self.stop.child_token();
        self.running.spawn(async move {
            let keeper = LeaseKeeper::start(&ctx, &claim.lease);
            let work = Work { mechanism: &*claim.mechanism, pool: &claim.pool, lease: &claim.lease };
            let ids: Vec<i64> = claim.nodes.iter().map(|node| node.id).collect();
            tracing::debug!(pool.name = claim.pool, nodes = ?ids, state = %claim.state, "claimed");
            let result = async {
                if claim.state == NodeState::Provisioning {
                    provision::provision_nodes(&ctx, &work, claim.nodes, &stop).await
                } else {
                    deprovision::deprovision_nodes(&ctx, &work, claim.nodes, &stop).await
                }
            };
            tokio::pin!(result);
            let result = tokio::select! {
                result = &mut result => result,
                // Somebody else may be at it: what runs here must end.
                () = keeper.lost().cancelled() => {
                    stop.cancel();
                    result.await
                }
            };
            if let Err(error) = result {
                tracing::error!(pool.name = work.pool, nodes = ?ids, %error, "cannot write what became of the nodes; their lease will lapse");
            }
        });
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
