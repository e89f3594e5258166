//! `tasks`: the worker.

use std::time::Duration;

use super::decode_count;
use crate::decode::{Cursor, Fields, Report};

/// The `tasks` section.
#[derive(Debug, Clone)]
pub struct Tasks {
    /// How often pools are filled.
    pub fill_pools_interval: Duration,
    /// How often expired sessions are looked for.
    pub expire_sessions_interval: Duration,
    /// How many nodes or batches one worker works on at a time. An addition to the original.
    pub concurrency: usize,
    /// How long a node belongs to a worker that does not renew its claim. An addition to the original.
    pub lease: Duration,
    /// How often provisioning or deprovisioning a node is tried before it counts as failed. An addition to the original.
    pub attempts: u32,
    /// The first wait before another attempt. An addition to the original.
    pub backoff_min: Duration,
    /// The longest wait before another attempt. An addition to the original.
    pub backoff_max: Duration,
    /// The longest wait of a pool whose mechanism keeps failing. An addition to the original.
    pub pool_backoff_max: Duration,
    /// How often a failed node is repaired, with no good use between, before it is left alone. An addition to the original.
    pub repairs: u32,
    /// The wait before the first repair; it doubles each time. An addition to the original.
    pub repair_min: Duration,
    /// The longest wait before a repair. An addition to the original.
    pub repair_max: Duration,
    /// How long history is kept; for ever if none. An addition to the original.
    pub keep_history: Option<Duration>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            fill_pools_interval: Duration::from_mins(5),
            expire_sessions_interval: Duration::from_mins(5),
            concurrency: 8,
            lease: Duration::from_mins(1),
            attempts: 5,
            backoff_min: Duration::from_secs(5),
            backoff_max: Duration::from_mins(5),
            pool_backoff_max: Duration::from_mins(15),
            repairs: 5,
            repair_min: Duration::from_mins(5),
            repair_max: Duration::from_hours(6),
            keep_history: None,
        }
    }
}

impl Tasks {
    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let known = &[
            "celery",
            "locking",
            "periodic",
            "concurrency",
            "lease",
            "attempts",
            "backoff-min",
            "backoff-max",
            "pool-backoff-max",
            "repairs",
            "repair-min",
            "repair-max",
            "keep-history",
        ];
        let fields = cursor.fields(report, known)?;
        let mut tasks = Self::default();
        // Celery takes keys of any name.
        fields.read(report, "celery", Cursor::map);
        fields.read(report, "locking", |at, report| at.fields(report, &["url"]));
        fields.read(report, "periodic", |at, report| {
            tasks.decode_periodic(at, report);
            Some(())
        });
        if let Some(concurrency) = fields.read(report, "concurrency", |at, report| {
            at.integer(report, 1..=10_000)
        }) {
            tasks.concurrency = concurrency as usize;
        }
        // A shorter lease would lapse while a worker renews it on a busy host.
        if let Some(lease) = fields.read(report, "lease", |at, report| {
            at.duration(report, Duration::from_secs(5))
        }) {
            tasks.lease = lease;
        }
        if let Some(attempts) =
            fields.read(report, "attempts", |at, report| decode_count(at, report, 1))
        {
            tasks.attempts = attempts;
        }
        (tasks.backoff_min, tasks.backoff_max) = decode_range(
            &fields,
            report,
            ["backoff-min", "backoff-max"],
            (tasks.backoff_min, tasks.backoff_max),
        );
        if let Some(wait) = fields.read(report, "pool-backoff-max", decode_wait) {
            tasks.pool_backoff_max = wait;
        }
        if let Some(repairs) =
            fields.read(report, "repairs", |at, report| decode_count(at, report, 0))
        {
            tasks.repairs = repairs;
        }
        (tasks.repair_min, tasks.repair_max) = decode_range(
            &fields,
            report,
            ["repair-min", "repair-max"],
            (tasks.repair_min, tasks.repair_max),
        );
        tasks.keep_history = fields.read(report, "keep-history", decode_wait);
        Some(tasks)
    }

    fn decode_periodic(&mut self, cursor: &Cursor<'_>, report: &mut Report) {
        for (name, task) in cursor.entries(report).unwrap_or_default() {
            let interval = task.fields(report, &["interval"]).and_then(|fields| {
                let at = fields.require(report, "interval")?;
                decode_wait(&at, report).map(|interval| (at, interval))
            });
            let Some((at, mut interval)) = interval else {
                continue;
            };
            if interval < Duration::from_secs(1) {
                at.warn(report, "this is less than a second and counts as one");
                interval = Duration::from_secs(1);
            }
            match name {
                "fill-pools" => self.fill_pools_interval = interval,
                "expire-sessions" => self.expire_sessions_interval = interval,
                _ => task.warn(
                    report,
                    "there is no periodic task of this name, only fill-pools and expire-sessions",
                ),
            }
        }
    }
}

/// The shortest and the longest wait, of two keys, where they are given. A shortest one alone lifts the longest.
fn decode_range(
    fields: &Fields<'_>,
    report: &mut Report,
    [min_name, max_name]: [&str; 2],
    (mut min, mut max): (Duration, Duration),
) -> (Duration, Duration) {
    if let Some(wait) = fields.read(report, min_name, decode_wait) {
        min = wait;
        max = max.max(wait);
    }
    if let Some(at) = fields.get(max_name)
        && let Some(wait) = decode_wait(&at, report)
    {
        if wait < min {
            let least = min.as_secs_f64();
            at.refuse::<()>(
                report,
                format!("must not be shorter than {min_name}, which is {least} s"),
            );
        }
        max = wait;
    }
    (min, max)
}

fn decode_wait(cursor: &Cursor<'_>, report: &mut Report) -> Option<Duration> {
    cursor.duration(report, Duration::ZERO)
}
