//! A long history: the indexes of its statements, and its removal.

use duffy_server::db::old_events::{self, EventPosition};
use duffy_server::db::{Db, DbError, Timestamp};
use sqlx::Connection;

use super::Engines;
use super::statements::plans;

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
async fn statements_on_a_long_history_use_its_indexes() {
    let engines = Engines::new().await;
    fill(&engines).await;
    let slice = "'2020-01-01 01:00', 36000, '2021-01-01'";
    for (function, index, values) in [
        (
            "delete_slice",
            "events_created_at_index",
            format!("{slice}, 1000"),
        ),
        (
            "last_of_slice",
            "events_created_at_index",
            format!("{slice}, 999"),
        ),
        (
            "count_slice",
            "events_created_at_index",
            "'2020-01-01 02:00', 72000, '2020-01-01 02:10'".to_owned(),
        ),
        (
            "list_of_node",
            "events_node_id_index",
            "5, 0, NULL, 100".to_owned(),
        ),
        ("last_of_node", "events_node_id_index", "5, 100".to_owned()),
        (
            "list_of_session",
            "events_session_id_index",
            "5, 0, 100".to_owned(),
        ),
    ] {
        let (postgres, sqlite) = plans(&engines, function, &values).await;
        let good = postgres.contains(index) && !postgres.contains("Seq Scan on events");
        assert!(good, "PostgreSQL, {function}:\n{postgres}");
        let good = sqlite.contains(index) && !sqlite.contains("SCAN events");
        assert!(good, "SQLite, {function}:\n{sqlite}");
    }
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
