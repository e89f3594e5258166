//! Messages about the progress of a migration.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

/// Gets messages about steps that take long, when they begin and at intervals.
pub type Report<'a> = &'a (dyn Fn(&str) + Sync);

/// Reports nothing.
pub fn in_silence(_: &str) {}

/// A step that ends within this time is not reported.
const MOMENT: Duration = Duration::from_secs(2);
/// The interval between two messages about the same step.
const EVERY: Duration = Duration::from_secs(15);

/// Does `work`, and reports on it as `what`.
pub(super) async fn watched<T>(work: impl Future<Output = T>, what: &str, report: Report<'_>) -> T {
    watched_every(MOMENT, EVERY, work, what, report).await
}

async fn watched_every<T>(
    moment: Duration,
    every: Duration,
    work: impl Future<Output = T>,
    what: &str,
    report: Report<'_>,
) -> T {
    let mut work = pin!(work);
    let begun = Instant::now();
    if let Ok(result) = tokio::time::timeout(moment, &mut work).await {
        return result;
    }
    report(what);
    let mut again = interval_at(begun + moment + every, every);
    loop {
        tokio::select! {
            result = &mut work => return result,
            _ = again.tick() => {
                let seconds = begun.elapsed().as_secs();
                report(&format!("{what}: still running, {seconds} s so far"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn what_takes_long_is_told_of_every_so_often() {
        let (said, times) = (Mutex::new(Vec::new()), Semaphore::new(0));
        let report = |text: &str| {
            said.lock().unwrap().push(text.to_owned());
            times.add_permits(1);
        };
        assert_eq!(watched(async { 1 }, "a quick step", &report).await, 1);
        assert_eq!(*said.lock().unwrap(), [""; 0]);
        // Ends when it was told of three times.
        let (work, short) = (times.acquire_many(3), Duration::from_millis(2));
        let done = watched_every(short, short, work, "a step", &report).await;
        assert!(done.is_ok());
        let said = said.lock().unwrap();
        let again = "a step: still running, 0 s so far";
        assert_eq!(said[..3], ["a step", again, again]);
    }
}
