//! A look into the database, past Duffy and past what is done to its connections.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::{Connection, Row};

/// Where the database is.
#[derive(Debug, Clone)]
pub enum Base {
    /// The URL of one on PostgreSQL.
    Postgres(String),
    /// The file of one on SQLite.
    Sqlite(PathBuf),
}

/// Rows of texts.
pub type Rows = Vec<Vec<String>>;

impl Base {
    /// Runs a statement, whose columns must be texts. `Err` when the database is away.
    pub fn ask(&self, sql: &'static str) -> Result<Rows, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let limit = Duration::from_secs(10);
        match runtime.block_on(async { tokio::time::timeout(limit, self.run(sql)).await }) {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
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
            Base::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                let rows = sqlx::query(sql).fetch_all(&mut connection).await?;
                connection.close().await?;
                Ok(texts(&rows))
            }
            Base::Sqlite(file) => {
                let url = format!("sqlite://{}", file.display());
                let mut connection = sqlx::SqliteConnection::connect(&url).await?;
                let rows = sqlx::query(sql).fetch_all(&mut connection).await?;
                connection.close().await?;
                Ok(texts(&rows))
            }
        }
    }
}
