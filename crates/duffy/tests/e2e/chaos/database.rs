//! Queries to the database, without Duffy and without the proxies.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::{Connection, Row};

/// The database.
#[derive(Debug, Clone)]
pub enum Database {
    /// The URL of a PostgreSQL database.
    Postgres(String),
    /// The file of an SQLite database.
    Sqlite(PathBuf),
}

/// Rows of text columns.
pub type Rows = Vec<Vec<String>>;

impl Database {
    /// Runs a statement whose columns are texts. Fails if the database is unavailable.
    pub fn query(&self, sql: &'static str) -> Result<Rows, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let limit = Duration::from_secs(10);
        match runtime.block_on(async { tokio::time::timeout(limit, self.run(sql)).await }) {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("timeout".to_owned()),
        }
    }

    async fn run(&self, sql: &'static str) -> Result<Rows, sqlx::Error> {
        fn texts<R: Row>(rows: &[R]) -> Rows
        where
            usize: sqlx::ColumnIndex<R>,
            Option<String>: for<'r> sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
        {
            let cells = |row: &R| {
                let cell = |index| row.get::<Option<String>, _>(index).unwrap_or_default();
                (0..row.len()).map(cell).collect()
            };
            rows.iter().map(cells).collect()
        }
        match self {
            Database::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                let rows = sqlx::query(sql).fetch_all(&mut connection).await?;
                connection.close().await?;
                Ok(texts(&rows))
            }
            Database::Sqlite(file) => {
                let url = format!("sqlite://{}", file.display());
                let mut connection = sqlx::SqliteConnection::connect(&url).await?;
                let rows = sqlx::query(sql).fetch_all(&mut connection).await?;
                connection.close().await?;
                Ok(texts(&rows))
            }
        }
    }
}
