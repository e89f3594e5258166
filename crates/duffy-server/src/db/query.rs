//! Statements and their values, for the engine that the transaction is with.

use sqlx::error::BoxDynError;
use sqlx::{Arguments, AssertSqlSafe, Database, Decode, Encode, FromRow, Type};

use super::connections::Connection;
use super::dialect::{self, Engine};
use super::engines::{postgres, sqlite};
use super::{DbError, Tx};

type Postgres = postgres::Driver;
type Sqlite = sqlite::Driver;

/// A value that an engine can store.
pub(super) trait Bind<'q, D: Database>: Sync {
    fn bind(&self, values: &mut D::Arguments) -> Result<(), BoxDynError>;
}

impl<'q, D: Database, T: Encode<'q, D> + Type<D> + Sync> Bind<'q, D> for T {
    fn bind(&self, values: &mut D::Arguments) -> Result<(), BoxDynError> {
        values.add(self)
    }
}

/// A value that both engines can store.
pub(super) trait Value<'q>: Bind<'q, Postgres> + Bind<'q, Sqlite> {}

impl<'q, T: Bind<'q, Postgres> + Bind<'q, Sqlite>> Value<'q> for T {}

/// The values of a statement: `$1`, `$2` and so on.
type Values<'v> = &'v [&'v dyn Value<'v>];

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

/// Runs a statement by functions of sqlx. The future is boxed: it is large, and callers nest.
macro_rules! run {
    ($tx:ident, $text:ident, $values:ident, $function:ident $(::<$row:ty>)?, $fetch:ident $(, $map:expr)?) => {{
        let text = dialect::expand($text, $tx.engine()).map_err(DbError::Corrupt)?;
        let state = &mut *$tx.0;
        let outcome = match state.inner.connection() {
            Connection::Postgres(connection) => run!(
                @on Postgres, connection, text, $values, $function $(::<$row>)?, $fetch $(, $map)?
            ),
            Connection::Sqlite(connection) => run!(
                @on Sqlite, connection, text, $values, $function $(::<$row>)?, $fetch $(, $map)?
            ),
        };
        outcome.map_err(|error| {
            let error = DbError::from(error);
            state.conflict |= matches!(error, DbError::Conflict(_));
            error
        })
    }};
    (@on $engine:ident, $connection:ident, $text:ident, $values:ident, $function:ident $(::<$row:ty>)?, $fetch:ident $(, $map:expr)?) => {{
        let mut values = <$engine as Database>::Arguments::default();
        for value in $values {
            Bind::<'_, $engine>::bind(*value, &mut values).map_err(sqlx::Error::Encode)?;
        }
        let query = sqlx::$function::<$engine, $($row,)? _>(AssertSqlSafe($text), values);
        Box::pin(query.$fetch(&mut **$connection)).await$(.map($map))?
    }};
}

/// Statements in the words of `dialect`.
impl Tx {
    /// The engine that it is with.
    pub(super) fn engine(&mut self) -> Engine {
        match self.0.inner.connection() {
            Connection::Postgres(_) => Engine::Postgres,
            Connection::Sqlite(_) => Engine::Sqlite,
        }
    }

    /// Returns how many rows the statement changed.
    pub(super) async fn count_changes(
        &mut self,
        text: &str,
        values: Values<'_>,
    ) -> Result<u64, DbError> {
        run!(self, text, values, query_with, execute, |done| done
            .rows_affected())
    }

    /// Returns whether the statement changed a row.
    pub(super) async fn changes(
        &mut self,
        text: &str,
        values: Values<'_>,
    ) -> Result<bool, DbError> {
        Ok(self.count_changes(text, values).await? > 0)
    }

    /// Runs a statement.
    pub(super) async fn execute(&mut self, text: &str, values: Values<'_>) -> Result<(), DbError> {
        self.count_changes(text, values).await.map(drop)
    }

    /// Returns all rows.
    pub(super) async fn fetch_all<R: Row>(
        &mut self,
        text: &str,
        values: Values<'_>,
    ) -> Result<Vec<R>, DbError> {
        run!(self, text, values, query_as_with::<R>, fetch_all)
    }

    /// Returns the first row.
    pub(super) async fn fetch_optional<R: Row>(
        &mut self,
        text: &str,
        values: Values<'_>,
    ) -> Result<Option<R>, DbError> {
        run!(self, text, values, query_as_with::<R>, fetch_optional)
    }

    /// Returns the row of a statement that always gives one.
    pub(super) async fn fetch_one<R: Row>(
        &mut self,
        text: &str,
        values: Values<'_>,
    ) -> Result<R, DbError> {
        run!(self, text, values, query_as_with::<R>, fetch_one)
    }

    /// Returns the first column of all rows.
    pub(super) async fn column<C: Column>(
        &mut self,
        text: &str,
        values: Values<'_>,
    ) -> Result<Vec<C>, DbError> {
        run!(self, text, values, query_scalar_with::<C>, fetch_all)
    }

    /// Returns the numbers in the first column of all rows.
    pub(super) async fn ids(
        &mut self,
        text: &str,
        values: Values<'_>,
    ) -> Result<Vec<i64>, DbError> {
        let ids = self.column::<i32>(text, values).await?;
        Ok(ids.into_iter().map(i64::from).collect())
    }

    /// Returns the first column of the first row.
    pub(super) async fn scalar<C: Column>(
        &mut self,
        text: &str,
        values: Values<'_>,
    ) -> Result<Option<C>, DbError> {
        run!(self, text, values, query_scalar_with::<C>, fetch_optional)
    }

    /// Returns the value of a statement that always gives one.
    pub(super) async fn value<C: Column>(
        &mut self,
        text: &str,
        values: Values<'_>,
    ) -> Result<C, DbError> {
        run!(self, text, values, query_scalar_with::<C>, fetch_one)
    }
}
