//! `retries`, in `app` and in `defaults`: how often and how soon a failed step is tried again.

use super::decode_count;
use crate::decode::{Cursor, Report};

/// What one section says about retrying. All of it is optional.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RetryOverrides {
    /// Attempts in all, at least one.
    pub no_attempts: Option<u32>,
    /// First delay in seconds.
    pub delay_min: Option<f64>,
    /// Longest delay in seconds.
    pub delay_max: Option<f64>,
    /// By what each delay is longer than the one before, at least one.
    pub delay_backoff_factor: Option<f64>,
    /// At most how many seconds are added by chance.
    pub delay_add_fuzz: Option<f64>,
}

/// How to retry, with nothing left open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retries {
    /// Attempts in all, at least one.
    pub no_attempts: u32,
    /// First delay in seconds.
    pub delay_min: f64,
    /// Longest delay in seconds; no shorter than the first one.
    pub delay_max: f64,
    /// By what each delay is longer than the one before, at least one.
    pub delay_backoff_factor: f64,
    /// At most how many seconds are added by chance.
    pub delay_add_fuzz: f64,
}

impl RetryOverrides {
    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let known = &[
            "no-attempts",
            "delay-min",
            "delay-max",
            "delay-backoff-factor",
            "delay-add-fuzz",
        ];
        let fields = cursor.fields(report, known)?;
        let mut seconds = |key, min: f64| {
            fields
                .get(key)
                .and_then(|at| at.number(report, min..=f64::INFINITY))
        };
        let delay_min = seconds("delay-min", 0.0);
        let delay_max = seconds("delay-max", 0.0);
        let delay_backoff_factor = seconds("delay-backoff-factor", 1.0);
        let delay_add_fuzz = seconds("delay-add-fuzz", 0.0);
        let no_attempts = fields
            .get("no-attempts")
            .and_then(|at| decode_count(&at, report, 1));
        Some(Self {
            no_attempts,
            delay_min,
            delay_max,
            delay_backoff_factor,
            delay_add_fuzz,
        })
    }

    /// What this says, then what `fallback` says, then the original's defaults.
    pub fn resolve(&self, fallback: &Self) -> Retries {
        let pick =
            |own: Option<f64>, other: Option<f64>, default: f64| own.or(other).unwrap_or(default);
        let delay_min = pick(self.delay_min, fallback.delay_min, 0.1);
        Retries {
            no_attempts: self.no_attempts.or(fallback.no_attempts).unwrap_or(5),
            delay_min,
            delay_max: pick(self.delay_max, fallback.delay_max, 1.6).max(delay_min),
            delay_backoff_factor: pick(
                self.delay_backoff_factor,
                fallback.delay_backoff_factor,
                2.0,
            ),
            delay_add_fuzz: pick(self.delay_add_fuzz, fallback.delay_add_fuzz, 0.3),
        }
    }
}
