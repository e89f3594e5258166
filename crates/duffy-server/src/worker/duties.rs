//! Periodic duties. Any worker can run any of them at any time: they take no input, and running one
//! twice at the same time does no harm.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use tokio::time::Instant;

use crate::context::Ctx;
use crate::db::DbError;
use crate::lifecycle::history::prune;
use crate::lifecycle::pools::{drain, fill, repair};
use crate::lifecycle::sessions::{expire, reclaim};

/// How often old history and keys are looked for.
const PRUNE: Duration = Duration::from_mins(10);
/// When a duty that failed is due again.
const SOON: Duration = Duration::from_secs(2);
/// The shortest and the longest interval at which lapsed leases and failed nodes are looked for.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// After duties ran, a change makes them due again after this number of times as long as they ran, but at most after
/// `LONGEST_REST`. Otherwise constant changes would keep the database busy with the counts of large pools.
const REST: u32 = 4;
/// See `REST`.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// All duties, in the order in which they run.
#[derive(Debug)]
pub(super) struct Duties {
    all: [Duty; 7],
    /// A change makes duties due at this time or later.
    rested_at: Instant,
}

#[derive(Debug)]
struct Duty {
    /// What it does, for messages.
    what: &'static str,
    interval: Duration,
    /// Whether it is due when something changed.
    on_change: bool,
    run: Run,
    due: Instant,
}

type Run = fn(&Ctx) -> BoxFuture<'_, Result<(), DbError>>;

impl Duties {
    pub(super) fn new(ctx: &Ctx) -> Self {
        let tasks = &ctx.config.tasks;
        let quarter = |time: Duration| (time / 4).clamp(LOOK.0, LOOK.1);
        let duty = |what, interval, on_change, run| Duty {
            what,
            interval,
            on_change,
            run,
            due: Instant::now(),
        };
        let (fill, expire) = (tasks.fill_pools_interval, tasks.expire_sessions_interval);
        let (lease, repair) = (quarter(tasks.lease), quarter(tasks.repair_min));
        let all = [
            duty("expire sessions", expire, true, |ctx| {
                expire::expire_sessions(ctx).map_ok(drop).boxed()
            }),
            duty("reclaim what others left behind", lease, false, |ctx| {
                reclaim::reclaim_abandoned(ctx).boxed()
            }),
            duty("repair failed nodes", repair, false, |ctx| {
                repair::repair_failed(ctx).map_ok(drop).boxed()
            }),
            duty("empty drained pools", fill, true, |ctx| {
                drain::empty_drained(ctx).map_ok(drop).boxed()
            }),
            duty("fill pools", fill, true, |ctx| {
                fill::fill_pools(ctx).map_ok(drop).boxed()
            }),
            duty("remove old history", PRUNE, false, |ctx| {
                prune::prune_history(ctx).map_ok(drop).boxed()
            }),
            duty("remove old idempotency keys", PRUNE, false, |ctx| {
                prune::prune_keys(ctx).map_ok(drop).boxed()
            }),
        ];
        Self {
            all,
            rested_at: Instant::now(),
        }
    }

    /// Makes those duties due that a change may concern: pools may lack nodes, sessions may be over.
    pub(super) fn hurry(&mut self) {
        let soon = self.rested_at.max(Instant::now());
        for duty in self.all.iter_mut().filter(|duty| duty.on_change) {
            duty.due = duty.due.min(soon);
        }
    }

    /// The time until the next duty is due.
    pub(super) fn next_due(&self) -> Duration {
        let now = Instant::now();
        let next = self.all.iter().map(|duty| duty.due).min().unwrap_or(now);
        next.saturating_duration_since(now)
    }

    /// Runs the duties that are due. False if the database refused one. That one is due again soon.
    pub(super) async fn run_due(&mut self, ctx: &Ctx) -> bool {
        let mut good = true;
        let begun = Instant::now();
        for duty in &mut self.all {
            let now = Instant::now();
            if duty.due > now {
                continue;
            }
            duty.due = now + duty.interval;
            if let Err(error) = (duty.run)(ctx).await {
                tracing::error!(%error, "cannot {}", duty.what);
                duty.due = duty.due.min(Instant::now() + SOON);
                good = false;
            }
            if duty.on_change {
                let rest = begun.elapsed().saturating_mul(REST).min(LONGEST_REST);
                self.rested_at = Instant::now() + rest;
            }
        }
        good
    }
}
