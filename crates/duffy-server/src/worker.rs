//! The worker: claims nodes that wait to be provisioned or deprovisioned, and runs the periodic
//! duties.
//!
//! Any number of workers can run, on any hosts. None touches what another one has leased, and each
//! picks up what another one left behind.

mod duties;
mod queue;
mod slots;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::actor;
use crate::context::Ctx;
pub use crate::nodes::mechanisms::Mechanisms;

use duties::Duties;
use queue::Queue;

/// How long running work may continue after the first signal to stop.
const GRACE: Duration = Duration::from_mins(1);
/// How long it may take to stop work and hand its leases back.
const HAND_BACK: Duration = Duration::from_secs(15);

/// Works until `ctx.stop` is cancelled, then gives running work a minute to end. After that, or
/// when `at_once` is cancelled, stops what still runs and hands it back.
pub async fn run(ctx: Ctx, mechanisms: Mechanisms, concurrency: usize, at_once: CancellationToken) {
    // Requests of clients must not keep the worker from the database.
    let work = run_as_worker(ctx.reserved(), mechanisms, concurrency, at_once);
    actor::acting(actor::worker(), Box::pin(work)).await;
}

async fn run_as_worker(
    ctx: Ctx,
    mechanisms: Mechanisms,
    concurrency: usize,
    at_once: CancellationToken,
) {
    tracing::info!(concurrency, pools = mechanisms.pools(), "worker started");
    let mut duties = Duties::new(&ctx);
    let mut queue = Queue::new(ctx.clone(), mechanisms.clone(), concurrency);
    // A turn that hangs with the database is cut short only by `at_once`.
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
        let calm = duties.run_due(ctx).await;
        queue.dispatch(|good| poll_interval(ctx, calm & good)).await;
        let pause = duties.next_due().min(queue.next_look());
        tokio::select! {
            () = ctx.stop.cancelled() => {}
            woken = wake_ups.wait(pause) => {
                if woken {
                    duties.hurry();
                }
                queue.look_again();
            }
            () = queue.ended() => {}
        }
    }
}

/// How long to wait for a wake-up before the next poll. It is random, so that workers do not poll at the
/// same time. SQLite wakes no other processes.
fn poll_interval(ctx: &Ctx, calm: bool) -> Duration {
    let longest = match (ctx.db.engine(), calm) {
        ("SQLite", true) => 1.0,
        (_, true) => 5.0,
        (_, false) => 2.0,
    };
    Duration::from_secs_f64(longest * (0.5 + rand::random::<f64>() / 2.0))
}
