//! Hints that there is work.

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

/// Waits again and again, each time for so short that the wait ends before it has gathered what comes together.
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
async fn a_hint_outlives_the_wait_that_saw_it() {
    let engines = Engines::new().await;
    let mut of_sqlite = engines.sqlite.wake_ups();
    wake(&engines.sqlite).await;
    assert!(wait_with_interruptions(&mut of_sqlite).await, "the bell");

    let mut of_postgres = engines.postgres.wake_ups();
    assert!(of_postgres.wait(Duration::from_mins(1)).await, "it listens");
    // Another process.
    wake(&open(&engines.server.url()).await).await;
    assert!(wait_with_interruptions(&mut of_postgres).await, "NOTIFY");
    // Once is enough.
    assert!(!of_postgres.wait(Duration::from_millis(100)).await);
    assert!(!of_sqlite.wait(Duration::from_millis(100)).await);
}
