//! Wake-ups: hints that there is work.

use std::time::Duration;

use duffy_server::db::{Db, DbError, WakeUps};

use super::{Engines, open};

async fn wake(db: &Db) {
    db.transaction(async |mut tx| -> Result<_, DbError> {
        tx.wake_workers();
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits repeatedly, each time for less than the time in which wake-ups are collected.
async fn wait_with_interruptions(wake_ups: &mut WakeUps) -> bool {
    let told = async {
        loop {
            let wait = wake_ups.wait(Duration::from_mins(1));
            if let Ok(told) = tokio::time::timeout(Duration::from_millis(2), wait).await {
                return told;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told).await;
    told.unwrap_or(false)
}

#[tokio::test]
async fn a_wake_up_outlives_an_interrupted_wait() {
    let engines = Engines::new().await;
    let mut of_sqlite = engines.sqlite.wake_ups();
    wake(&engines.sqlite).await;
    assert!(wait_with_interruptions(&mut of_sqlite).await, "the bell");

    let mut of_postgres = engines.postgres.wake_ups();
    assert!(of_postgres.wait(Duration::from_mins(1)).await, "it listens");
    // A wake-up from another process.
    wake(&open(&engines.server.url()).await).await;
    assert!(wait_with_interruptions(&mut of_postgres).await, "NOTIFY");
    // One wake-up is sufficient.
    assert!(!of_postgres.wait(Duration::from_millis(100)).await);
    assert!(!of_sqlite.wait(Duration::from_millis(100)).await);
}
