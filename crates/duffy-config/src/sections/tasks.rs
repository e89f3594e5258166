//! `tasks`: the worker.

use std::time::Duration;

use super::decode_count;
use crate::decode::{Cursor, Report};

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
    /// Whether there is a `celery` section, which is not used.
    pub celery_present: bool,
    /// Whether there is a `locking` section, which is not used.
    pub locking_present: bool,
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
            celery_present: false,
            locking_present: false,
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
        ];
        let fields = cursor.fields(report, known)?;
        let mut tasks = Self {
            // Celery takes keys of any name.
            celery_present: fields
                .get("celery")
                .and_then(|at| at.open_fields(report))
                .is_some(),
            locking_present: fields
                .get("locking")
                .and_then(|at| at.fields(report, &["url"]))
                .is_some(),
            ..Self::default()
        };
        if let Some(periodic) = fields.get("periodic") {
            tasks.decode_periodic(&periodic, report);
        }
        if let Some(concurrency) = fields
            .get("concurrency")
            .and_then(|at| at.integer(report, 1..=10_000))
        {
            tasks.concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
        }
        // A shorter lease would lapse while a worker renews it on a busy host.
        if let Some(lease) = fields
            .get("lease")
            .and_then(|at| at.duration(report, Duration::from_secs(5)))
        {
            tasks.lease = lease;
        }
        if let Some(attempts) = fields
            .get("attempts")
            .and_then(|at| decode_count(&at, report, 1))
        {
            tasks.attempts = attempts;
        }
        if let Some(wait) = fields
            .get("backoff-min")
            .and_then(|at| at.duration(report, Duration::ZERO))
        {
            tasks.backoff_min = wait;
            tasks.backoff_max = tasks.backoff_max.max(wait);
        }
        if let Some(at) = fields.get("backoff-max")
            && let Some(wait) = at.duration(report, Duration::ZERO)
        {
            if wait < tasks.backoff_min {
                let least = tasks.backoff_min.as_secs_f64();
                at.refuse::<()>(
                    report,
                    format!("must not be shorter than backoff-min, which is {least} s"),
                );
            }
            tasks.backoff_max = wait;
        }
        Some(tasks)
    }

    fn decode_periodic(&mut self, cursor: &Cursor<'_>, report: &mut Report) {
        for (name, task) in cursor.entries(report).unwrap_or_default() {
            let interval = task
                .fields(report, &["interval"])
                .and_then(|fields| fields.require(report, "interval"))
                .and_then(|at| {
                    at.duration(report, Duration::ZERO)
                        .map(|interval| (at, interval))
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
