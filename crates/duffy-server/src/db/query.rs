//! Statements and their values, for the engine that the transaction is with.

use sqlx::error::BoxDynError;
use sqlx::{Arguments, AssertSqlSafe, Database, Encode, FromRow, Type, ValueRef};

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
type Values<'s, 'v> = &'s [&'s dyn Value<'v>];

/// A statement and its values.
pub(super) struct Statement<'v> {
    pub(super) sql: &'v str,
    pub(super) values: Vec<&'v dyn Value<'v>>,
}

/// A type that rows of an engine can be read as.
pub(super) trait RowOf<D: Database>: for<'r> FromRow<'r, D::Row> + Send + Unpin {}

impl<D: Database, T: for<'r> FromRow<'r, D::Row> + Send + Unpin> RowOf<D> for T {}

/// A type that rows of both engines can be read as.
pub(super) trait Row: RowOf<Postgres> + RowOf<Sqlite> {}

impl<T: RowOf<Postgres> + RowOf<Sqlite>> Row for T {}

/// Columns of an outer join.
pub(super) struct Joined<T>(pub(super) Option<T>);

/// The columns of a table that is joined.
pub(super) trait Table {
    /// A column that is null if and only if no row is joined.
    const KEY: &'static str;
}

impl<'r, R: sqlx::Row, T: FromRow<'r, R> + Table> FromRow<'r, R> for Joined<T>
where
    &'static str: sqlx::ColumnIndex<R>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        if row.try_get_raw(T::KEY)?.is_null() {
            return Ok(Joined(None));
        }
        T::from_row(row).map(|columns| Joined(Some(columns)))
    }
}

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
    pub(super) async fn count_changes(
        &mut self,
        sql: &str,
        values: Values<'_, '_>,
    ) -> DbResult<u64> {
        run!(self, sql, values, query_with, execute, |done| done
            .rows_affected())
    }

    /// Returns whether the statement changed a row.
    pub(super) async fn changes(&mut self, sql: &str, values: Values<'_, '_>) -> DbResult<bool> {
        Ok(self.count_changes(sql, values).await? > 0)
    }

    /// Runs a statement.
    pub(super) async fn execute(&mut self, sql: &str, values: Values<'_, '_>) -> DbResult<()> {
        self.count_changes(sql, values).await.map(drop)
    }

    /// Returns all rows.
    pub(super) async fn fetch_all<R: Row>(
        &mut self,
        sql: &str,
        values: Values<'_, '_>,
    ) -> DbResult<Vec<R>> {
        run!(self, sql, values, query_as_with::<R>, fetch_all)
    }

    /// Runs `others`, and returns all rows of the statement. PostgreSQL runs them as one statement, in one round trip: none
    /// of them sees what another one writes.
    pub(super) async fn fetch_all_with<'v, R: Row>(
        &mut self,
        statement: Statement<'v>,
        others: &[Statement<'v>],
    ) -> DbResult<Vec<R>> {
        match self.engine() {
            Engine::Postgres => {
                let (sql, values) = in_one(statement, others);
                self.fetch_all(&sql, &values).await
            }
            Engine::Sqlite => {
                for other in others {
                    self.execute(other.sql, &other.values).await?;
                }
                self.fetch_all(statement.sql, &statement.values).await
            }
        }
    }

    /// Returns the first row.
    pub(super) async fn fetch_optional<R: Row>(
        &mut self,
        sql: &str,
        values: Values<'_, '_>,
    ) -> DbResult<Option<R>> {
        run!(self, sql, values, query_as_with::<R>, fetch_optional)
    }

    /// Returns the row of a statement that always gives one.
    pub(super) async fn fetch_one<R: Row>(
        &mut self,
        sql: &str,
        values: Values<'_, '_>,
    ) -> DbResult<R> {
        run!(self, sql, values, query_as_with::<R>, fetch_one)
    }

    /// Returns the first column of all rows.
    pub(super) async fn column<C>(&mut self, sql: &str, values: Values<'_, '_>) -> DbResult<Vec<C>>
    where
        (C,): Row,
    {
        let rows = self.fetch_all(sql, values).await?;
        Ok(rows.into_iter().map(|(value,)| value).collect())
    }

    /// Returns the numbers in the first column of all rows.
    pub(super) async fn ids(&mut self, sql: &str, values: Values<'_, '_>) -> DbResult<Vec<i64>> {
        let ids = self.column::<i32>(sql, values).await?;
        Ok(ids.into_iter().map(i64::from).collect())
    }

    /// Returns the first column of the first row.
    pub(super) async fn scalar<C>(
        &mut self,
        sql: &str,
        values: Values<'_, '_>,
    ) -> DbResult<Option<C>>
    where
        (C,): Row,
    {
        let row = self.fetch_optional(sql, values).await?;
        Ok(row.map(|(value,)| value))
    }

    /// Returns the value of a statement that always gives one.
    pub(super) async fn value<C>(&mut self, sql: &str, values: Values<'_, '_>) -> DbResult<C>
    where
        (C,): Row,
    {
        self.fetch_one(sql, values).await.map(|(value,)| value)
    }
}

/// Returns one statement, of PostgreSQL, that runs all of these. Its rows are those of the first one.
fn in_one<'v>(
    statement: Statement<'v>,
    others: &[Statement<'v>],
) -> (String, Vec<&'v dyn Value<'v>>) {
    let mut values = statement.values;
    let mut sql = String::new();
    for (number, other) in others.iter().enumerate() {
        let begin = if number == 0 { "WITH" } else { "," };
        let (number, text) = (
            number.to_string(),
            with_later_values(other.sql, values.len()),
        );
        sql.extend([begin, " other_", &number, " AS (", &text, ") "]);
        values.extend(&other.values);
    }
    sql.push_str(statement.sql);
    (sql, values)
}

/// Returns a statement whose `$1` is `$1` plus `offset`, and so on.
fn with_later_values(sql: &str, offset: usize) -> String {
    let mut parts = sql.split('$');
    let mut shifted = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit());
        let (number, rest) = part.split_at(end.unwrap_or(part.len()));
        shifted.push('$');
        match number.parse::<usize>() {
            Ok(number) => shifted.push_str(&(number + offset).to_string()),
            Err(_) => shifted.push_str(number),
        }
        shifted.push_str(rest);
    }
    shifted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_become_one_with_the_values_of_all() {
        let others = [
            Statement {
                sql: "insert into a values ($2, {now + $1}, '$')",
                values: vec![&1, &"x"],
            },
            Statement {
                sql: "insert into b values ($1)",
                values: vec![&true],
            },
        ];
        let statement = Statement {
            sql: "update c set d = $1 where e = $2",
            values: vec![&2, &3],
        };
        let (sql, values) = in_one(statement, &others);
        assert_eq!(
            sql.to_lowercase(),
            "with other_0 as (insert into a values ($4, {now + $3}, '$')) \
             , other_1 as (insert into b values ($5)) update c set d = $1 where e = $2"
        );
        assert_eq!(values.len(), 5);
    }
}
