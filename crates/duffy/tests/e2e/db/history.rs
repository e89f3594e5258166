//! The removal of a long history.

use duffy_server::db::old_events::{self, EventPosition};
use duffy_server::db::{Db, DbError, Timestamp};
use sqlx::Connection;

use super::Engines;

const OLD: u64 = 100_000;

/// Adds this many old events, ten per second, and some of today.
async fn fill(engines: &Engines) {
    engines.server.psql(
        "INSERT INTO events (created_at, node_id, session_id, cause, actor) \
         SELECT TIMESTAMP '2020-01-01' + g / 10 * INTERVAL '1 second', g % 1000, g % 1000, 'x', 'y' \
         FROM generate_series(1, 100000) AS g; \
         INSERT INTO events (created_at, cause, actor) \
         SELECT now() AT TIME ZONE 'utc', 'x', 'y' FROM generate_series(1, 50); ANALYZE events",
    );
    let mut file = sqlx::SqliteConnection::connect(&engines.sqlite_url())
        .await
        .unwrap();
    for insert in [
        "WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 100000) \
         INSERT INTO events (created_at, node_id, session_id, cause, actor) \
         SELECT strftime('%Y-%m-%d %H:%M:%f000', 1577836800 + n / 10, 'unixepoch'), \
         n % 1000, n % 1000, 'x', 'y' FROM g",
        "WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 50) \
         INSERT INTO events (created_at, cause, actor) \
         SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now'), 'x', 'y' FROM g",
    ] {
        sqlx::query(insert).execute(&mut file).await.unwrap();
    }
    file.close().await.unwrap();
}

#[tokio::test]
async fn a_long_history_is_counted_and_removed_in_slices() {
    let engines = Engines::new().await;
    fill(&engines).await;
    let day = 86_400.0;
    for db in engines.both() {
        let before = db
            .read(async |mut tx| old_events::long_ago(&mut tx, day).await)
            .await
            .unwrap();
        // Slices begin and end between events with the same time.
        let counted = slices(db, before, 30_003, false).await;
        assert_eq!(counted, [30_003, 30_003, 30_003, 9_991]);
        let removed = slices(db, before, 33_337, true).await;
        assert_eq!(removed, [33_337, 33_337, 33_326]);
        assert_eq!(removed.iter().sum::<u64>(), OLD);
        assert_eq!(slices(db, before, 1000, false).await, [0]);
        let later = Timestamp(before.0 + chrono::TimeDelta::days(2));
        assert_eq!(slices(db, later, 10, false).await, [10, 10, 10, 10, 10, 0]);
    }
}

/// Removes or counts events in slices. Returns the sizes of the slices.
async fn slices(db: &Db, before: Timestamp, limit: u32, remove: bool) -> Vec<u64> {
    let (mut sizes, mut place) = (Vec::new(), Some(EventPosition::START));
    while let Some(after) = place {
        let slice = db
            .transaction(async |mut tx| -> Result<_, DbError> {
                let slice = if remove {
                    old_events::delete_slice(&mut tx, after, before, limit).await?
                } else {
                    old_events::count_slice(&mut tx, after, before, limit).await?
                };
                Ok(slice)
            })
            .await
            .unwrap();
        sizes.push(slice.events);
        place = slice.next;
    }
    sizes
}
