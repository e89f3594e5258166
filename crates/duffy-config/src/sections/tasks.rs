//! `tasks`: the worker.

use std::time::Duration;

use crate::decode::{Cursor, Fields};

/// The `tasks` section. All fields after the intervals are additions to the original.
#[derive(Debug, Clone)]
pub struct Tasks {
    /// How often pools are filled.
    pub fill_pools_interval: Duration,
    /// How often expired sessions are looked for.
    pub expire_sessions_interval: Duration,
    /// How many nodes or batches one worker works on at a time.
    pub concurrency: usize,
    /// How long a worker keeps a node whose lease it does not renew.
    pub lease: Duration,
    /// How many attempts to provision or deprovision a node are made before it counts as failed.
    pub attempts: u32,
    /// The wait before the second attempt.
    pub backoff_min: Duration,
    /// The longest wait before another attempt.
    pub backoff_max: Duration,
    /// The longest wait of a pool whose mechanism keeps failing.
    pub pool_backoff_max: Duration,
    /// How many times a failed node is repaired without a session in between before it is left alone.
    pub repairs: u32,
    /// The wait before the first repair; it doubles each time.
    pub repair_min: Duration,
    /// The longest wait before a repair.
    pub repair_max: Duration,
    /// How long history is kept; forever if `None`.
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
    pub(crate) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        let mut tasks = Self::default();
        cursor.section(|fields| {
            // Celery accepts any keys.
            fields.read("celery", Cursor::map);
            fields.read("locking", |at| at.section(|locking| locking.get("url")));
            if let Some(at) = fields.get("periodic") {
                tasks.decode_periodic(&at);
            }
            tasks.concurrency = fields.read_or("concurrency", tasks.concurrency, |at| {
                at.integer(1..=10_000)
            });
            // A shorter lease would lapse while a worker on a busy host renews it.
            let lease = |at: &Cursor<'_>| at.duration(Duration::from_secs(5));
            tasks.lease = fields.read_or("lease", tasks.lease, lease);
            tasks.attempts = fields.read_or("attempts", tasks.attempts, |at| at.count(1));
            let backoff = (tasks.backoff_min, tasks.backoff_max);
            (tasks.backoff_min, tasks.backoff_max) =
                decode_range(fields, "backoff-min", "backoff-max", backoff);
            tasks.pool_backoff_max =
                fields.read_or("pool-backoff-max", tasks.pool_backoff_max, decode_wait);
            tasks.repairs = fields.read_or("repairs", tasks.repairs, |at| at.count(0));
            let repair = (tasks.repair_min, tasks.repair_max);
            (tasks.repair_min, tasks.repair_max) =
                decode_range(fields, "repair-min", "repair-max", repair);
            tasks.keep_history = fields.read("keep-history", decode_wait);
            Some(tasks)
        })
    }

    fn decode_periodic(&mut self, cursor: &Cursor<'_>) {
        for (name, task) in cursor.entries().unwrap_or_default() {
            let interval = task.section(|fields| {
                let at = fields.require("interval")?;
                Some((decode_wait(&at)?, at))
            });
            let Some((mut interval, at)) = interval else {
                continue;
            };
            if interval < Duration::from_secs(1) {
                at.warn("this is less than a second and counts as one");
                interval = Duration::from_secs(1);
            }
            match name {
                "fill-pools" => self.fill_pools_interval = interval,
                "expire-sessions" => self.expire_sessions_interval = interval,
                _ => task.warn(
                    "there is no periodic task of this name, only fill-pools and expire-sessions",
                ),
            }
        }
    }
}

/// Decodes the shortest and the longest wait. A given shortest wait raises a default longest wait.
fn decode_range(
    fields: &Fields<'_>,
    min_name: &'static str,
    max_name: &'static str,
    default: (Duration, Duration),
) -> (Duration, Duration) {
    let min = fields.read_or(min_name, default.0, decode_wait);
    let max = fields.read_or(max_name, default.1.max(min), |at| {
        let max = decode_wait(at)?;
        if max < min {
            let least = min.as_secs_f64();
            return at.refuse(format!(
                "must not be shorter than {min_name}, which is {least} s"
            ));
        }
        Some(max)
    });
    (min, max)
}

fn decode_wait(cursor: &Cursor<'_>) -> Option<Duration> {
    cursor.duration(Duration::ZERO)
}
