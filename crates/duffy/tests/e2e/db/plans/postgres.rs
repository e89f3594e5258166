//! What statements read in PostgreSQL.

use std::fmt::Write;

use serde_json::Value as Json;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use duffy_server::db::dialect::Engine;

use super::rows::{ACTIVE, insert_statements};
use super::values::Value;
use super::{Engines, Explain, GROWING, Verdict};
use crate::db::statements::Statement;

/// The most rows of a table that a statement may examine: the active ones, thrice.
const MAX_ROWS: f64 = 3.0 * ACTIVE as f64;

/// A database with rows and their statistics.
pub struct Filled(PgConnection);

impl Filled {
    pub async fn new(engines: &Engines) -> Self {
        let url = engines.server.url();
        let mut this = Self(PgConnection::connect(&url).await.unwrap());
        // Loads the rows without a log, foreign keys and indexes, which saves time and disk space.
        this.run("SET session_replication_role = replica; SET maintenance_work_mem = '128MB'")
            .await;
        for table in [
            "sessions_nodes",
            "sessions",
            "nodes",
            "events",
            "idempotency_keys",
        ] {
            this.run(&format!("ALTER TABLE {table} SET UNLOGGED")).await;
        }
        let indexes = this
            .run(
                "SELECT indexname, indexdef FROM pg_indexes \
                 WHERE schemaname = current_schema() AND indexname LIKE '%\\_index'",
            )
            .await;
        for index in &indexes {
            this.run(&format!("DROP INDEX {}", index.get::<String, _>(0)))
                .await;
        }
        for insert in insert_statements(Engine::Postgres) {
            this.run(&insert).await;
        }
        for index in &indexes {
            this.run(index.get(1)).await;
        }
        // As autovacuum does.
        this.run("VACUUM ANALYZE").await;
        this
    }

    /// Runs statements without parameters.
    pub async fn run(&mut self, sql: &str) -> Vec<PgRow> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(&mut self.0)
            .await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Returns the types of the parameters of a statement. A number is a `bigint`, as the program sends it.
    pub async fn parameters(&mut self, statement: &Statement) -> Vec<String> {
        self.prepare(statement, &[]).await;
        let rows = self
            .run(
                "SELECT CAST(unnest(parameter_types) AS TEXT) FROM pg_prepared_statements \
                 WHERE name = 'statement'",
            )
            .await;
        rows.iter()
            .map(|row| row.get::<String, _>(0).replace("integer", "bigint"))
            .collect()
    }

    async fn prepare(&mut self, statement: &Statement, kinds: &[String]) {
        let mut parameters = kinds.join(", ");
        if !kinds.is_empty() {
            parameters = format!("({parameters})");
        }
        let sql = format!(
            "DEALLOCATE ALL; PREPARE statement {parameters} AS {}",
            statement.in_words_of(Engine::Postgres)
        );
        self.run(&sql).await;
    }
}

impl Explain for Filled {
    /// Explains the plan that PostgreSQL uses at the first five times, and the one for all values that it may use later.
    async fn explain(&mut self, statement: &Statement, values: &[Value]) -> Vec<Verdict> {
        let kinds: Vec<_> = values.iter().map(|value| value.kind.clone()).collect();
        self.prepare(statement, &kinds).await;
        let literals: Vec<_> = values.iter().map(Value::literal).collect();
        let execute = if literals.is_empty() {
            "EXECUTE statement".to_owned()
        } else {
            format!("EXECUTE statement ({})", literals.join(", "))
        };
        let mut verdicts = Vec::new();
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let sql = format!(
                "SET plan_cache_mode = {mode}; BEGIN; \
                 EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}; ROLLBACK"
            );
            let rows = self.run(&sql).await;
            let explained: Json = rows[0].get(0);
            let plan = &explained[0]["Plan"];
            let mut verdict = Verdict {
                plan: format!("{mode}:\n"),
                faults: Vec::new(),
            };
            judge(plan, 0, &mut verdict);
            verdicts.push(verdict);
        }
        verdicts
    }
}

/// Adds a node of a plan, and those below it.
fn judge(node: &Json, depth: usize, verdict: &mut Verdict) {
    let number = |node: &Json, name: &str| node[name].as_f64().unwrap_or(0.0);
    let blocks =
        |node: &Json| number(node, "Shared Hit Blocks") + number(node, "Shared Read Blocks");
    let text = |name: &str| node[name].as_str().unwrap_or_default();
    let children = node["Plans"].as_array().map_or(&[][..], Vec::as_slice);

    let (kind, table, index) = (text("Node Type"), text("Relation Name"), text("Index Name"));
    let condition = text("Index Cond");
    let loops = number(node, "Actual Loops");
    let rows = loops
        * (number(node, "Actual Rows")
            + number(node, "Rows Removed by Filter")
            + number(node, "Rows Removed by Index Recheck"));
    let own_blocks = blocks(node) - children.iter().map(blocks).sum::<f64>();
    let indent = "  ".repeat(depth);
    writeln!(
        verdict.plan,
        "{indent}{kind} {table} {index} {condition} rows={rows} loops={loops} blocks={own_blocks}"
    )
    .unwrap();

    if kind.ends_with("Scan") && (GROWING.contains(&table) || !index.is_empty()) {
        if kind == "Seq Scan" {
            verdict.faults.push(format!("it scans {table}"));
        } else if rows > MAX_ROWS {
            verdict
                .faults
                .push(format!("it examines {rows} rows of {table} {index}"));
        } else if own_blocks > 1000.0 + 10.0 * (rows + loops) {
            // It reads entries of the index that do not lead to rows.
            verdict.faults.push(format!(
                "it reads {own_blocks} blocks of {table} {index} for {rows} rows"
            ));
        }
    }
    for child in children {
        judge(child, depth + 1, verdict);
    }
}
