//! Old rows of the `events` table, counted and removed in slices. Each slice is a short transaction of its own, however
//! long the history is.

use chrono::DateTime;

use super::{DbError, Timestamp, Tx};

/// Where an event stands in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub struct Place {
    created_at: Timestamp,
    id: i64,
}

impl Place {
    /// Before the first event.
    pub const START: Place = Place {
        created_at: Timestamp(DateTime::UNIX_EPOCH),
        id: 0,
    };
}

/// A part of the old events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// How many events.
    pub events: u64,
    /// Behind which event the next part begins; `None` when there is none.
    pub next: Option<Place>,
}

/// The point of time `seconds` ago.
pub async fn long_ago(tx: &mut Tx, seconds: f64) -> Result<Timestamp, DbError> {
    // The point of time that is so long ago. The engines use an index for a value, but not for a reading of the clock.
    tx.query("SELECT {now + $1}").bind(-seconds).value().await
}

/// Removes events that are older than a time, `limit` at most, from a place on.
pub async fn delete_slice(
    tx: &mut Tx,
    after: Place,
    before: Timestamp,
    limit: u32,
) -> Result<Slice, DbError> {
    // Others may remove the same events: where the next part begins is not told by what is left for this one.
    let next = last_of_slice(tx, after, before, limit).await?;
    // Begins where the slice before ended: otherwise PostgreSQL passes over all rows that were removed already.
    let removed = tx
        .query(
            "DELETE FROM events WHERE id {in_rows} SELECT id FROM events \
         WHERE (created_at, id) > ($1, $2) AND created_at < $3 \
         ORDER BY created_at, id LIMIT $4{end_in_rows} RETURNING created_at, id",
        )
        .bind(after.created_at)
        .bind(after.id)
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all::<Place>()
        .await?;
    let events = removed.len() as u64;
    Ok(Slice { events, next })
}

/// The last event of a whole slice; `None` when there are fewer.
async fn last_of_slice(
    tx: &mut Tx,
    after: Place,
    before: Timestamp,
    limit: u32,
) -> Result<Option<Place>, DbError> {
    tx.query(
        "SELECT created_at, id FROM events WHERE (created_at, id) > ($1, $2) AND created_at < $3 \
         ORDER BY created_at, id LIMIT 1 OFFSET $4",
    )
    .bind(after.created_at)
    .bind(after.id)
    .bind(before)
    .bind(i64::from(limit) - 1)
    .fetch_optional()
    .await
}

/// Counts events that are older than a time, `limit` at most, from a place on.
pub async fn count_slice(
    tx: &mut Tx,
    after: Place,
    before: Timestamp,
    limit: u32,
) -> Result<Slice, DbError> {
    let next = last_of_slice(tx, after, before, limit).await?;
    let events = if next.is_some() {
        u64::from(limit)
    } else {
        let rest = tx
            .query(
                "SELECT count(*) FROM events WHERE (created_at, id) > ($1, $2) AND created_at < $3",
            )
            .bind(after.created_at)
            .bind(after.id)
            .bind(before)
            .value::<i64>()
            .await?;
        u64::try_from(rest).unwrap_or(0)
    };
    Ok(Slice { events, next })
}
