//! The worker: claims nodes that wait to be provisioned or deprovisioned, and sees to the
//! periodic duties.
//!
//! Any number of them can run, on any hosts: what one has leased the others leave alone, and
//! what one leaves behind the others pick up.

mod duties;
mod mechanisms;
mod queue;
mod slots;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::actor;
use crate::context::Ctx;
pub use mechanisms::{Mechanisms, MechanismsError};

use duties::Duties;
use queue::Queue;

/// How long running work may go on after the first order to stop.
const GRACE: Duration = Duration::from_mins(1);
/// How long it may take to stop work and hand its leases back.
const HAND_BACK: Duration = Duration::from_secs(15);

/// Works until `ctx.stop` is cancelled, then lets running work end, for a minute at most;
/// what still runs then, or when `at_once` is cancelled, is stopped and handed back.
pub async fn run(ctx: Ctx, mechanisms: Mechanisms, concurrency: usize, at_once: CancellationToken) {
    // What clients ask for must not keep it from the database.
    let work = run_as_worker(ctx.reserved(), mechanisms, concurrency, at_once);
    actor::acting(actor::worker(), Box::pin(work)).await;
}

async fn run_as_worker(
    ctx: Ctx,
    mechanisms: Mechanisms,
    concurrency: usize,
    at_once: CancellationToken,
) {
    tracing::info!(concurrency, pools = mechanisms.len(), "worker started");
    let mut duties = Duties::new(&ctx);
    let mut queue = Queue::new(ctx.clone(), mechanisms.clone(), concurrency);
    // A turn may hang with the database: only then, and only at once, is it cut short.
    at_once
        .run_until_cancelled(turn_until_stopped(&ctx, &mut duties, &mut queue))
        .await;
    if queue.running() > 0 {
        tracing::info!(
            running = queue.running(),
            "stopping when running work has ended"
        );
        tokio::select! {
            () = queue.drain() => {}
            () = tokio::time::sleep(GRACE) => {}
            () = at_once.cancelled() => {}
        }
    }
    queue.stop_work();
    if tokio::time::timeout(HAND_BACK, queue.drain())
        .await
        .is_err()
    {
        tracing::warn!(
            running = queue.running(),
            "work did not stop; its leases will lapse"
        );
    }
    mechanisms.shut_down().await;
    tracing::info!("worker stopped");
}

async fn turn_until_stopped(ctx: &Ctx, duties: &mut Duties, queue: &mut Queue) {
    let mut wake_ups = ctx.db.wake_ups();
    while !ctx.stop.is_cancelled() {
        let dutiful = duties.run_due(ctx).await;
        let dispatched = queue.dispatch().await;
        let poll = duties
            .next_due()
            .min(poll_interval(ctx, dutiful && dispatched));
        tokio::select! {
            () = ctx.stop.cancelled() => {}
            told = wake_ups.wait(poll) => if told { duties.hurry() },
            () = queue.ended() => {}
        }
    }
}

/// How long to wait for a hint before looking by oneself; not the same for all workers, so
/// that they spread. SQLite gives no hints to other processes.
fn poll_interval(ctx: &Ctx, calm: bool) -> Duration {
    let longest = match (ctx.db.engine(), calm) {
        ("SQLite", true) => 1.0,
        (_, true) => 5.0,
        (_, false) => 2.0,
    };
    Duration::from_secs_f64(longest * (0.5 + rand::random::<f64>() / 2.0))
}
