//! Statements and their values, for the engine that the transaction is with.

use sqlx::error::BoxDynError;
use sqlx::{Arguments, AssertSqlSafe, Database, Encode, FromRow, Type};

use super::connections::Connection;
use super::dialect::{self, Engine};
use super::engines::{postgres, sqlite};
use super::{DbError, DbResult, Tx};

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

/// A type that rows of an engine can be read as.
pub(super) trait RowOf<D: Database>: for<'r> FromRow<'r, D::Row> + Send + Unpin {}

impl<D: Database, T: for<'r> FromRow<'r, D::Row> + Send + Unpin> RowOf<D> for T {}

/// A type that rows of both engines can be read as.
pub(super) trait Row: RowOf<Postgres> + RowOf<Sqlite> {}

impl<T: RowOf<Postgres> + RowOf<Sqlite>> Row for T {}

/// Runs a statement by functions of sqlx. The future is boxed: it is large, and callers nest.
macro_rules! run {
    ($tx:ident, $sql:ident, $values:ident, $function:ident $(::<$row:ty>)?, $fetch:ident $(, $map:expr)?) => {{
        let text = dialect::expand($sql, $tx.engine()).map_err(DbError::Corrupt)?;
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
            state.broken |= error.is_broken_connection();
            error
        })
    }};
    (@on $engine:ident, $connection:ident, $sql:ident, $values:ident, $function:ident $(::<$row:ty>)?, $fetch:ident $(, $map:expr)?) => {{
        let mut values = <$engine as Database>::Arguments::default();
        for value in $values {
            Bind::<'_, $engine>::bind(*value, &mut values).map_err(sqlx::Error::Encode)?;
        }
        let query = sqlx::$function::<$engine, $($row,)? _>(AssertSqlSafe($sql), values);
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
    pub(super) async fn count_changes(&mut self, sql: &str, values: Values<'_>) -> DbResult<u64> {
        run!(self, sql, values, query_with, execute, |done| done
            .rows_affected())
    }

    /// Returns whether the statement changed a row.
    pub(super) async fn changes(&mut self, sql: &str, values: Values<'_>) -> DbResult<bool> {
        Ok(self.count_changes(sql, values).await? > 0)
    }

    /// Runs a statement.
    pub(super) async fn execute(&mut self, sql: &str, values: Values<'_>) -> DbResult<()> {
        self.count_changes(sql, values).await.map(drop)
    }

    /// Returns all rows.
    pub(super) async fn fetch_all<R: Row>(
        &mut self,
        sql: &str,
        values: Values<'_>,
    ) -> DbResult<Vec<R>> {
        run!(self, sql, values, query_as_with::<R>, fetch_all)
    }

    /// Returns the first row.
    pub(super) async fn fetch_optional<R: Row>(
        &mut self,
        sql: &str,
        values: Values<'_>,
    ) -> DbResult<Option<R>> {
        run!(self, sql, values, query_as_with::<R>, fetch_optional)
    }

    /// Returns the row of a statement that always gives one.
    pub(super) async fn fetch_one<R: Row>(&mut self, sql: &str, values: Values<'_>) -> DbResult<R> {
        run!(self, sql, values, query_as_with::<R>, fetch_one)
    }

    /// Returns the first column of all rows.
    pub(super) async fn column<C>(&mut self, sql: &str, values: Values<'_>) -> DbResult<Vec<C>>
    where
        (C,): Row,
    {
        let rows = self.fetch_all(sql, values).await?;
        Ok(rows.into_iter().map(|(value,)| value).collect())
    }

    /// Returns the numbers in the first column of all rows.
    pub(super) async fn ids(&mut self, sql: &str, values: Values<'_>) -> DbResult<Vec<i64>> {
        let ids = self.column::<i32>(sql, values).await?;
        Ok(ids.into_iter().map(i64::from).collect())
    }

    /// Returns the first column of the first row.
    pub(super) async fn scalar<C>(&mut self, sql: &str, values: Values<'_>) -> DbResult<Option<C>>
    where
        (C,): Row,
    {
        let row = self.fetch_optional(sql, values).await?;
        Ok(row.map(|(value,)| value))
    }

    /// Returns the value of a statement that always gives one.
    pub(super) async fn value<C>(&mut self, sql: &str, values: Values<'_>) -> DbResult<C>
    where
        (C,): Row,
    {
        self.fetch_one(sql, values).await.map(|(value,)| value)
    }
}
