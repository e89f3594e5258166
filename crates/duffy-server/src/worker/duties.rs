//! What has to be done every now and then, by any worker: it takes no input, and doing it
//! twice at the same time does no harm.

use std::time::Duration;

use tokio::time::Instant;

use crate::context::Ctx;
use crate::db::DbError;
use crate::lifecycle::history::prune;
use crate::lifecycle::pools::{drain, fill, repair};
use crate::lifecycle::sessions::{expire, reclaim};

/// When each duty is due.
#[derive(Debug)]
pub(super) struct Duties {
    fill: Timer,
    expire: Timer,
    reclaim: Timer,
    repair: Timer,
    prune: Timer,
}

#[derive(Debug)]
struct Timer {
    interval: Duration,
    due: Instant,
}

impl Timer {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            due: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let due = self.due <= now;
        if due {
            self.due = now + self.interval;
        }
        due
    }

    /// What did not succeed is done again soon, not after the whole interval. Whether it did.
    fn settle(&mut self, what: &str, done: Result<(), DbError>) -> bool {
        let Err(error) = done else {
            return true;
        };
        tracing::error!(%error, "cannot {what}");
        self.due = self.due.min(Instant::now() + SOON);
        false
    }
}

impl Duties {
    pub(super) fn new(ctx: &Ctx) -> Self {
        let tasks = &ctx.config.tasks;
        Self {
            fill: Timer::new(tasks.fill_pools_interval),
            expire: Timer::new(tasks.expire_sessions_interval),
            reclaim: Timer::new((tasks.lease / 4).clamp(MIN_RECLAIM, MAX_RECLAIM)),
            repair: Timer::new((tasks.repair_min / 4).clamp(MIN_RECLAIM, MAX_RECLAIM)),
            prune: Timer::new(PRUNE),
        }
    }

    /// Something changed: pools may lack nodes, sessions may be over.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        self.fill.due = now;
        self.expire.due = now;
    }

    /// How long until the next one.
    pub(super) fn next_due(&self) -> Duration {
        let all = [
            &self.fill,
            &self.expire,
            &self.reclaim,
            &self.repair,
            &self.prune,
        ];
        let now = Instant::now();
        let next = all.iter().map(|timer| timer.due).min().unwrap_or(now);
        next.saturating_duration_since(now)
    }

    /// Does what is due. False when the database did not let it be done.
    pub(super) async fn run_due(&mut self, ctx: &Ctx) -> bool {
        let mut good = true;
        if self.expire.take() {
            let done = expire::expire_sessions(ctx).await.map(drop);
            good &= self.expire.settle("expire sessions", done);
        }
        if self.reclaim.take() {
            let done = reclaim::reclaim_abandoned(ctx).await;
            good &= self.reclaim.settle("reclaim what others left behind", done);
        }
        if self.repair.take() {
            let done = repair::repair_failed(ctx).await.map(drop);
            good &= self.repair.settle("repair failed nodes", done);
        }
        if self.fill.take() {
            let emptied = drain::empty_drained(ctx).await.map(drop);
            good &= self.fill.settle("empty drained pools", emptied);
            let done = fill::fill_pools(ctx).await.map(drop);
            good &= self.fill.settle("fill pools", done);
        }
        if self.prune.take() {
            let done = prune::prune_history(ctx).await.map(drop);
            good &= self.prune.settle("remove old history", done);
            let done = prune::prune_keys(ctx).await.map(drop);
            good &= self.prune.settle("remove old idempotency keys", done);
        }
        good
    }
}

/// How often old history and keys are looked for.
const PRUNE: Duration = Duration::from_mins(10);
/// When a duty that did not succeed is due again.
const SOON: Duration = Duration::from_secs(2);
const MIN_RECLAIM: Duration = Duration::from_secs(1);
const MAX_RECLAIM: Duration = Duration::from_secs(15);
