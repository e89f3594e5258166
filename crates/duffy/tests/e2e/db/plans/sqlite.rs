//! What statements read in SQLite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Row, SqliteConnection};

use duffy_server::db::dialect::Engine;

use super::rows::{ACTIVE, insert_statements};
use super::values::Value;
use super::{Engines, Explain, GROWING, Verdict};
use crate::db::statements::Statement;

/// The most instructions of SQLite's virtual machine that a statement may take. It takes three or more for each row.
const MAX_STEPS: u32 = 150 * ACTIVE;
const STEPS_PER_CALL: u32 = 1000;

/// A database with rows. It has no statistics: Duffy does not run ANALYZE.
pub struct Filled {
    connection: SqliteConnection,
    /// The instructions of the current statement. It is interrupted after the limit.
    steps: Arc<AtomicU32>,
}

impl Filled {
    pub async fn new(engines: &Engines) -> Self {
        let path = engines.scratch.join("duffy.sqlite");
        // Loads the rows without a journal, foreign keys and indexes, which saves time.
        let connection = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(false)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .connect()
            .await
            .unwrap();
        let mut this = Self {
            connection,
            steps: Arc::default(),
        };
        let indexes = sqlx::query(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        )
        .fetch_all(&mut this.connection)
        .await
        .unwrap();
        for index in &indexes {
            this.run(&format!("DROP INDEX {}", index.get::<String, _>(0)))
                .await;
        }
        for insert in insert_statements(Engine::Sqlite) {
            this.run(&insert).await;
        }
        for index in &indexes {
            this.run(index.get(1)).await;
        }
        this.run("PRAGMA journal_mode = MEMORY").await;
        let steps = Arc::clone(&this.steps);
        let count = move || steps.fetch_add(STEPS_PER_CALL, Ordering::Relaxed) < MAX_STEPS;
        let mut handle = this.connection.lock_handle().await.unwrap();
        handle.set_progress_handler(STEPS_PER_CALL.cast_signed(), count);
        drop(handle);
        this
    }

    /// Runs statements without parameters.
    pub async fn run(&mut self, sql: &str) {
        self.steps.store(0, Ordering::Relaxed);
        let done = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut self.connection)
            .await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

impl Explain for Filled {
    async fn explain(&mut self, statement: &Statement, values: &[Value]) -> Vec<Verdict> {
        let text = statement.in_words_of(Engine::Sqlite);
        let explain = format!("EXPLAIN QUERY PLAN {text}");
        let rows = sqlx::query(AssertSqlSafe(explain))
            .fetch_all(&mut self.connection)
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let mut faults: Vec<_> = plan
            .iter()
            .filter_map(|step| step.strip_prefix("SCAN "))
            .filter(|table| GROWING.contains(table))
            .map(|table| format!("it scans {table}"))
            .collect();
        self.run("BEGIN").await;
        let mut query = sqlx::query(AssertSqlSafe(text));
        for value in values {
            query = value.bind(query);
        }
        let done = query.execute(&mut self.connection).await;
        if self.steps.load(Ordering::Relaxed) > MAX_STEPS {
            faults.push(format!("it takes more than {MAX_STEPS} steps"));
        } else if let Err(error) = done {
            panic!("SQLite, {}, {values:?}: {error}", statement.function);
        }
        // SQLite has rolled an interrupted change back already.
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut self.connection)
            .await
            .ok();
        let plan = plan.join("\n");
        vec![Verdict { plan, faults }]
    }
}
