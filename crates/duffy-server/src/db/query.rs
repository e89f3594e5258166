//! A statement and its values, for the engine that the transaction is with.

use sqlx::{Arguments, AssertSqlSafe, Database, Decode, Encode, FromRow, Type};

use super::connections::TxInner;
use super::dialect::{self, Engine, Postgres, Sqlite};
use super::{DbError, Tx};

/// A statement on its way to the database. Build one with [`Tx::query`].
pub(super) struct Query<'t> {
    values: Values,
    text: Result<String, DbError>,
    connection: &'t mut TxInner,
    conflict: &'t mut bool,
}

enum Values {
    Postgres(<Postgres as Database>::Arguments),
    Sqlite(<Sqlite as Database>::Arguments),
}

/// What both engines can store.
pub(super) trait Value<'q>:
    Encode<'q, Postgres> + Type<Postgres> + Encode<'q, Sqlite> + Type<Sqlite>
{
}

impl<'q, T> Value<'q> for T where
    T: Encode<'q, Postgres> + Type<Postgres> + Encode<'q, Sqlite> + Type<Sqlite>
{
}

/// What a row of both engines can be read as.
pub(super) trait Row:
    for<'r> FromRow<'r, <Postgres as Database>::Row>
    + for<'r> FromRow<'r, <Sqlite as Database>::Row>
    + Send
    + Unpin
{
}

impl<T> Row for T where
    T: for<'r> FromRow<'r, <Postgres as Database>::Row>
        + for<'r> FromRow<'r, <Sqlite as Database>::Row>
        + Send
        + Unpin
{
}

/// What a column of both engines can be read as.
pub(super) trait Column:
    for<'r> Decode<'r, Postgres>
    + Type<Postgres>
    + for<'r> Decode<'r, Sqlite>
    + Type<Sqlite>
    + Send
    + Unpin
{
}

impl<T> Column for T where
    T: for<'r> Decode<'r, Postgres>
        + Type<Postgres>
        + for<'r> Decode<'r, Sqlite>
        + Type<Sqlite>
        + Send
        + Unpin
{
}

impl Tx {
    /// The engine that it is with.
    pub(super) fn engine(&self) -> Engine {
        match self.0.inner {
            TxInner::Postgres(_) => Engine::Postgres,
            TxInner::Sqlite(_) => Engine::Sqlite,
        }
    }

    /// A statement in the words of `dialect`. Its values follow, in the order of `$1`, `$2` and so on.
    pub(super) fn query(&mut self, text: &str) -> Query<'_> {
        let state = &mut *self.0;
        let (engine, values) = match &state.inner {
            TxInner::Postgres(_) => {
                let values = <Postgres as Database>::Arguments::default();
                (Engine::Postgres, Values::Postgres(values))
            }
            TxInner::Sqlite(_) => {
                let values = <Sqlite as Database>::Arguments::default();
                (Engine::Sqlite, Values::Sqlite(values))
            }
        };
        Query {
            values,
            text: dialect::expand(text, engine).map_err(DbError::Corrupt),
            connection: &mut state.inner,
            conflict: &mut state.conflict,
        }
    }
}

/// Sends a query by a function of sqlx. The future is boxed: it is large, and callers nest.
macro_rules! send {
    ($query:ident, $function:ident $(::<$row:ty>)?, $fetch:ident, $result:ident => $outcome:expr) => {{
        let text = AssertSqlSafe($query.text?);
        let outcome = match ($query.connection, $query.values) {
            (TxInner::Postgres(tx), Values::Postgres(values)) => {
                let query = sqlx::$function::<Postgres, $($row,)? _>(text, values);
                Box::pin(query.$fetch(&mut **tx)).await.map(|$result| $outcome)
            }
            (TxInner::Sqlite(tx), Values::Sqlite(values)) => {
                let query = sqlx::$function::<Sqlite, $($row,)? _>(text, values);
                Box::pin(query.$fetch(&mut **tx)).await.map(|$result| $outcome)
            }
            _ => unreachable!("a query has values for the engine of its transaction"),
        };
        outcome.map_err(|error| {
            let error = DbError::from(error);
            *$query.conflict |= matches!(error, DbError::Conflict(_));
            error
        })
    }};
}

impl Query<'_> {
    /// Adds the next value.
    pub(super) fn bind<'q>(mut self, value: impl Value<'q>) -> Self {
        let added = match &mut self.values {
            Values::Postgres(values) => values.add(value),
            Values::Sqlite(values) => values.add(value),
        };
        if let Err(error) = added {
            self.text = Err(sqlx::Error::Encode(error).into());
        }
        self
    }

    /// Returns how many rows the statement changed.
    pub(super) async fn execute(self) -> Result<u64, DbError> {
        send!(self, query_with, execute, done => done.rows_affected())
    }

    /// Returns all rows.
    pub(super) async fn fetch_all<R: Row>(self) -> Result<Vec<R>, DbError> {
        send!(self, query_as_with::<R>, fetch_all, rows => rows)
    }

    /// Returns the first row.
    pub(super) async fn fetch_optional<R: Row>(self) -> Result<Option<R>, DbError> {
        send!(self, query_as_with::<R>, fetch_optional, row => row)
    }

    /// Returns the row of a statement that always gives one.
    pub(super) async fn fetch_one<R: Row>(self) -> Result<R, DbError> {
        send!(self, query_as_with::<R>, fetch_one, row => row)
    }

    /// Returns the first column of all rows.
    pub(super) async fn column<C: Column>(self) -> Result<Vec<C>, DbError> {
        send!(self, query_scalar_with::<C>, fetch_all, values => values)
    }

    /// Returns the first column of the first row.
    pub(super) async fn scalar<C: Column>(self) -> Result<Option<C>, DbError> {
        send!(self, query_scalar_with::<C>, fetch_optional, value => value)
    }

    /// Returns the value of a statement that always gives one.
    pub(super) async fn value<C: Column>(self) -> Result<C, DbError> {
        send!(self, query_scalar_with::<C>, fetch_one, value => value)
    }
}
