//! Old rows of the `events` table, counted and removed in slices. Each slice is a short transaction of its own, however
//! long the history is.

use chrono::DateTime;

use super::{DbResult, Timestamp, Tx};

/// The position of an event in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub struct EventPosition {
    created_at: Timestamp,
    id: i64,
}

impl EventPosition {
    /// Before the first event.
    pub const START: EventPosition = EventPosition {
        created_at: Timestamp(DateTime::UNIX_EPOCH),
        id: 0,
    };
}

/// A part of the old events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// How many events.
    pub events: u64,
    /// The next part begins after this event; `None` when this was the last part.
    pub next: Option<EventPosition>,
}

/// Returns the time `seconds` ago.
pub async fn long_ago(tx: &mut Tx, seconds: f64) -> DbResult<Timestamp> {
    // The engines use an index for a value, but not for an expression with the clock.
    tx.value("SELECT {now + $1}", &[&-seconds]).await
}

/// Removes up to `limit` events that are older than `before`, from a position on.
pub async fn delete_slice(
    tx: &mut Tx,
    after: EventPosition,
    before: Timestamp,
    limit: u32,
) -> DbResult<Slice> {
    // Read first: others may remove the same events, so the rows removed here do not say where the next part begins.
    let next = last_of_slice(tx, after, before, limit).await?;
    // Begins where the last slice ended. Otherwise PostgreSQL scans all rows that were removed before.
    let sql = "DELETE FROM events WHERE id {in_rows} SELECT id FROM events \
        WHERE (created_at, id) > ($1, $2) AND created_at < $3 \
        ORDER BY created_at, id LIMIT $4{end_in_rows}";
    let (EventPosition { created_at, id }, limit) = (after, i64::from(limit));
    let events = tx
        .count_changes(sql, &[&created_at, &id, &before, &limit])
        .await?;
    Ok(Slice { events, next })
}

/// Finds the last event of a full slice; `None` when there are fewer events.
async fn last_of_slice(
    tx: &mut Tx,
    after: EventPosition,
    before: Timestamp,
    limit: u32,
) -> DbResult<Option<EventPosition>> {
    let sql = "SELECT created_at, id FROM events WHERE (created_at, id) > ($1, $2) \
        AND created_at < $3 ORDER BY created_at, id LIMIT 1 OFFSET $4";
    let (EventPosition { created_at, id }, offset) = (after, i64::from(limit) - 1);
    tx.fetch_optional(sql, &[&created_at, &id, &before, &offset])
        .await
}

/// Counts up to `limit` events that are older than `before`, from a position on.
pub async fn count_slice(
    tx: &mut Tx,
    after: EventPosition,
    before: Timestamp,
    limit: u32,
) -> DbResult<Slice> {
    let next = last_of_slice(tx, after, before, limit).await?;
    let mut events = u64::from(limit);
    if next.is_none() {
        let EventPosition { created_at, id } = after;
        let sql =
            "SELECT count(*) FROM events WHERE (created_at, id) > ($1, $2) AND created_at < $3";
        let rest: i64 = tx.value(sql, &[&created_at, &id, &before]).await?;
        events = rest.unsigned_abs();
    }
    Ok(Slice { events, next })
}
