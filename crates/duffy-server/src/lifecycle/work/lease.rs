//! Holds a lease while the work under it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::context::Ctx;
use crate::db::{Db, DbError, leases};

/// Returns a new random lease.
pub fn new_lease() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Renews a lease until dropped.
#[derive(Debug)]
pub struct LeaseKeeper {
    lease: Arc<Lease>,
    /// Ends the renewal.
    _ended: DropGuard,
}

#[derive(Debug)]
struct Lease {
    id: String,
    length: Duration,
    /// How many nodes are under it whose work has not ended.
    left: AtomicU64,
    /// When the last renewal that succeeded was sent.
    renewed: watch::Sender<Instant>,
    lost: CancellationToken,
}

impl LeaseKeeper {
    /// Starts to renew a lease on this number of nodes, which was requested at `taken`.
    pub fn start(ctx: &Ctx, lease: String, nodes: usize, taken: Instant) -> Self {
        let lease = Arc::new(Lease {
            id: lease,
            length: ctx.config.tasks.lease,
            left: AtomicU64::new(nodes as u64),
            renewed: watch::Sender::new(taken),
            lost: CancellationToken::new(),
        });
        let ended = CancellationToken::new();
        // Requests of clients must not keep it from its renewal.
        let renewal = Arc::clone(&lease).keep(ctx.db.reserved());
        tokio::spawn(ended.clone().run_until_cancelled_owned(renewal));
        Self {
            lease,
            _ended: ended.drop_guard(),
        }
    }

    /// The lease.
    pub fn lease(&self) -> &str {
        &self.lease.id
    }

    /// Is cancelled once the lease is lost: then another process may work on the nodes.
    pub fn lost(&self) -> &CancellationToken {
        &self.lease.lost
    }

    /// Whether the last renewal is so recent that no other process can work on the nodes. Ask before each act on a node:
    /// a process that slept past its lease must look at the lease before it touches a node.
    pub fn is_fresh(&self) -> bool {
        let Lease { length, lost, .. } = &*self.lease;
        !lost.is_cancelled() && self.lease.renewed.borrow().elapsed() < *length * 2 / 3
    }

    /// The lease has this many nodes less. Call before the write that ends the work on them, so that a renewal
    /// meanwhile does not count them as lost.
    pub fn expect_fewer(&self, nodes: usize) {
        let fewer = |left: u64| Some(left.saturating_sub(nodes as u64));
        let left = &self.lease.left;
        // The closure always gives a value.
        let _ = left.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
    }

    /// The lease has one node more again: the write that should have ended its work did not.
    pub fn expect_again(&self) {
        self.lease.left.fetch_add(1, Ordering::AcqRel);
    }
}

/// The part of a lease's length after which the work stops if the lease cannot be renewed. The work must have stopped when
/// the lease ends, because another process may go on then.
const USABLE: f64 = 0.9;

impl Lease {
    async fn keep(self: Arc<Self>, db: Db) {
        let length = self.length;
        let renew =
            async |mut tx| leases::renew_lease(&mut tx, &self.id, length.as_secs_f64()).await;
        // A third: two renewals may fail before the lease does.
        let mut pause = length / 3;
        loop {
            let lapses = *self.renewed.borrow() + length.mul_f64(USABLE);
            tokio::time::sleep_until(lapses.min(Instant::now() + pause)).await;
            let asked = Instant::now();
            tokio::select! {
                result = db.transaction(renew) => match result {
                    // Loaded after the renewal: work that ended meanwhile is not missed.
                    Ok(held) if held < self.left.load(Ordering::Acquire) => {
                        tracing::warn!(lease = self.id, held, "lease lost to another process");
                        self.lost.cancel();
                        return;
                    }
                    Ok(_) => {
                        self.renewed.send_replace(asked);
                        pause = length / 3;
                    }
                    Err(error) => {
                        tracing::warn!(lease = self.id, %error, "cannot renew lease");
                        pause = length / 10;
                    }
                },
                () = tokio::time::sleep_until(lapses) => {
                    tracing::warn!(lease = self.id, "lease lapsed: it could not be renewed");
                    self.lost.cancel();
                    return;
                }
            }
        }
    }
}

/// Hands back the nodes that are still under the lease. Their work has not ended.
pub(crate) async fn hand_back(ctx: &Ctx, lease: &str) -> Result<(), DbError> {
    let write = async |mut tx| leases::hand_back_lease(&mut tx, lease).await;
    ctx.db.transaction(write).await.map(drop)
}

/// How long to retry writing the result of work while the database is unavailable.
const PERSIST_FOR: Duration = Duration::from_mins(15);
/// The pause between retries.
const PERSIST_PAUSE: Duration = Duration::from_secs(1);

/// Writes the result of work, and retries while the database is unavailable: a restart of PostgreSQL must not lose a
/// machine that a long playbook made. Writing late does no harm, because the write requires the lease. Does not retry
/// while the process stops.
pub(crate) async fn persist<T, F, Fut>(ctx: &Ctx, write: F) -> Result<T, DbError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, DbError>>,
{
    let until = Instant::now() + PERSIST_FOR;
    loop {
        match write().await {
            Err(error @ (DbError::Unavailable(_) | DbError::Conflict(_)))
                if Instant::now() < until && !ctx.stop.is_cancelled() =>
            {
                tracing::warn!(%error, "cannot write the result of work; retrying");
                tokio::select! {
                    () = tokio::time::sleep(PERSIST_PAUSE) => {}
                    () = ctx.stop.cancelled() => {}
                }
            }
            result => return result,
        }
    }
}
