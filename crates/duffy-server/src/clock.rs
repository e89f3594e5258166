//! The host's clock. What is written to the database is judged by the database's clock instead.

use chrono::{DateTime, Utc};

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

impl Clock {
    /// The current time.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(self) -> DateTime<Utc> {
        Utc::now()
    }
}
