//! What has to be done every now and then, by any worker: it takes no input, and doing it
//! twice at the same time does no harm.

use std::time::Duration;

use tokio::time::Instant;

use crate::context::Ctx;
use crate::lifecycle::{expire, fill, reclaim};

/// When each duty is due.
#[derive(Debug)]
pub(super) struct Duties {
    fill: Timer,
    expire: Timer,
    reclaim: Timer,
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

    /// It did not succeed: soon again, not after the whole interval.
    fn again_soon(&mut self) {
        self.due = self.due.min(Instant::now() + SOON);
    }
}

impl Duties {
    pub(super) fn new(ctx: &Ctx) -> Self {
        let tasks = &ctx.config.tasks;
        Self {
            fill: Timer::new(tasks.fill_pools_interval),
            expire: Timer::new(tasks.expire_sessions_interval),
            reclaim: Timer::new((ctx.policy.lease / 4).clamp(MIN_RECLAIM, MAX_RECLAIM)),
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
        let next = self.fill.due.min(self.expire.due).min(self.reclaim.due);
        next.saturating_duration_since(Instant::now())
    }

    /// Does what is due. False when the database did not let it be done.
    pub(super) async fn run_due(&mut self, ctx: &Ctx) -> bool {
        let mut good = true;
        if self.expire.take()
            && let Err(error) = expire::expire_sessions(ctx).await
        {
            tracing::error!(%error, "cannot expire sessions");
            self.expire.again_soon();
            good = false;
        }
        if self.reclaim.take()
            && let Err(error) = reclaim::reclaim_abandoned(ctx).await
        {
            tracing::error!(%error, "cannot reclaim what others left behind");
            self.reclaim.again_soon();
            good = false;
        }
        if self.fill.take()
            && let Err(error) = fill::fill_pools(ctx).await
        {
            tracing::error!(%error, "cannot fill pools");
            self.fill.again_soon();
            good = false;
        }
        good
    }
}

/// When a duty that did not succeed is due again.
const SOON: Duration = Duration::from_secs(2);
const MIN_RECLAIM: Duration = Duration::from_secs(1);
const MAX_RECLAIM: Duration = Duration::from_secs(15);
