//! Holding a lease while the work under it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Ctx;
use crate::db::{Db, DbError, leases};

/// A new random lease.
pub fn new_lease() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Renews a lease until dropped.
#[derive(Debug)]
pub struct LeaseKeeper {
    lease: String,
    length: Duration,
    /// How many nodes are under it whose work has not ended.
    left: Arc<AtomicU64>,
    renewed: watch::Receiver<Instant>,
    lost: CancellationToken,
    ended: CancellationToken,
}

impl LeaseKeeper {
    /// Starts to renew a lease on so many nodes, which was asked for at `taken`.
    pub fn start(ctx: &Ctx, lease: String, nodes: usize, taken: Instant) -> Self {
        let (sender, renewed) = watch::channel(taken);
        let keeper = Self {
            lease,
            length: ctx.policy.lease,
            left: Arc::new(AtomicU64::new(nodes as u64)),
            renewed,
            lost: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let renewal = Renewal {
            // Requests of clients must not keep it from its renewal.
            db: ctx.db.reserved(),
            length: keeper.length,
            lease: keeper.lease.clone(),
            left: keeper.left.clone(),
            renewed: sender,
            lost: keeper.lost.clone(),
        };
        let ended = keeper.ended.clone();
        tokio::spawn(ended.run_until_cancelled_owned(renewal.run()));
        keeper
    }

    /// The lease.
    pub fn lease(&self) -> &str {
        &self.lease
    }

    /// Is cancelled once the lease is lost: then another process may work on the nodes.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Whether the lease was renewed so lately that nobody else can be at work. Asked before
    /// each act on a node: a process that slept past its lease must not touch one first and
    /// look at its lease afterwards.
    pub fn is_fresh(&self) -> bool {
        !self.lost.is_cancelled() && self.renewed.borrow().elapsed() < self.length * 2 / 3
    }

    /// The lease has this many nodes less. Call before the write that ends the work on them, so that a renewal
    /// meanwhile does not count them as lost.
    pub fn expect_fewer(&self, nodes: usize) {
        let fewer = |left: u64| Some(left.saturating_sub(nodes as u64));
        // The closure always gives a value.
        let _ = self
            .left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
    }
}

impl LeaseKeeper {
    /// One node more again: the write that should have ended its work did not.
    pub fn expect_again(&self) {
        self.left.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// Of a lease's length, the part after which the work stops when it cannot be renewed: by the
/// lease's end nothing of it may run, for others go on then.
const USABLE: f64 = 0.9;

/// What keeps a lease.
struct Renewal {
    db: Db,
    length: Duration,
    lease: String,
    left: Arc<AtomicU64>,
    renewed: watch::Sender<Instant>,
    lost: CancellationToken,
}

impl Renewal {
    async fn run(self) {
        let length = self.length;
        // A third: two renewals may fail before the lease does.
        let mut pause = length / 3;
        loop {
            let lapses = *self.renewed.borrow() + length.mul_f64(USABLE);
            tokio::time::sleep_until(lapses.min(Instant::now() + pause)).await;
            let asked = Instant::now();
            tokio::select! {
                result = self.renew() => match result {
                    // Counted after the renewal: what has ended meanwhile is not missed.
                    Ok(held) if held < self.left.load(Ordering::Acquire) => {
                        tracing::warn!(lease = self.lease, held, "lease lost to somebody else");
                        self.lost.cancel();
                        return;
                    }
                    Ok(_) => {
                        self.renewed.send_replace(asked);
                        pause = length / 3;
                    }
                    Err(error) => {
                        tracing::warn!(lease = self.lease, %error, "cannot renew lease");
                        pause = length / 10;
                    }
                },
                () = tokio::time::sleep_until(lapses) => {
                    tracing::warn!(lease = self.lease, "lease lapsed: it could not be renewed");
                    self.lost.cancel();
                    return;
                }
            }
        }
    }

    async fn renew(&self) -> Result<u64, DbError> {
        let seconds = self.length.as_secs_f64();
        self.db
            .transaction(async |mut tx| leases::renew_lease(&mut tx, &self.lease, seconds).await)
            .await
    }
}

/// Gives nodes up unfinished, whatever of them is still under the lease.
pub(crate) async fn hand_back(ctx: &Ctx, lease: &str) -> Result<(), DbError> {
    let write = async |mut tx| {
        leases::hand_back_lease(&mut tx, lease).await?;
        Ok(())
    };
    ctx.db.transaction(write).await
}

/// How long to try to write what became of work while the database is away.
const PERSIST_FOR: Duration = Duration::from_mins(15);
/// The pause between tries.
const PERSIST_PAUSE: Duration = Duration::from_secs(1);

/// Writes what became of work, again and again while the database is away: a machine made by a
/// long playbook must not be forgotten for a restart of PostgreSQL. Writing late does no harm,
/// as the write requires the lease. It does not retry while the process stops.
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
                tracing::warn!(%error, "cannot write what became of work, trying again");
                tokio::select! {
                    () = tokio::time::sleep(PERSIST_PAUSE) => {}
                    () = ctx.stop.cancelled() => {}
                }
            }
            result => return result,
        }
    }
}
