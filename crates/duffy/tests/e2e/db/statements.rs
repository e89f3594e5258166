//! Each SQL statement of the sources, for each engine.

use std::path::Path;
use std::{fs, mem};

use duffy_server::db::dialect::{Engine, expand};
use sqlx::{AssertSqlSafe, Connection, Executor, SqlSafeStr};
use syn::visit::{self, Visit};
use walkdir::WalkDir;

use super::Engines;

/// A statement in the sources.
pub struct Statement {
    /// The function that runs it.
    pub function: String,
    /// In the words of `dialect`.
    pub text: String,
}

impl Statement {
    pub fn in_words_of(&self, engine: Engine) -> String {
        let expanded = expand(&self.text, engine);
        expanded.unwrap_or_else(|error| panic!("{}: {error}", self.function))
    }
}

#[derive(Default)]
struct Statements {
    function: String,
    found: Vec<Statement>,
}

impl<'ast> Visit<'ast> for Statements {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let outer = mem::replace(&mut self.function, item.sig.ident.to_string());
        visit::visit_item_fn(self, item);
        self.function = outer;
    }

    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        let text = literal.value();
        let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];
        if !self.function.is_empty() && verbs.iter().any(|verb| text.starts_with(verb)) {
            self.found.push(Statement {
                function: self.function.clone(),
                text,
            });
        }
    }
}

/// Returns all statements of functions in `db/`.
pub fn statements() -> Vec<Statement> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../duffy-server/src/db");
    let mut statements = Statements::default();
    for entry in WalkDir::new(sources) {
        let path = entry.unwrap().into_path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(path).unwrap();
            statements.visit_file(&syn::parse_file(&source).unwrap());
        }
    }
    statements.found
}

#[tokio::test]
async fn each_engine_prepares_each_statement() {
    let engines = Engines::new().await;
    let url = engines.server.url();
    let mut postgres = sqlx::PgConnection::connect(&url).await.unwrap();
    let url = engines.sqlite_url();
    let mut sqlite = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let statements = statements();
    for statement in &statements {
        let text = AssertSqlSafe(statement.in_words_of(Engine::Postgres)).into_sql_str();
        let prepared = (&mut postgres).prepare(text).await;
        let function = &statement.function;
        assert!(prepared.is_ok(), "PostgreSQL, {function}: {prepared:?}");
        let text = AssertSqlSafe(statement.in_words_of(Engine::Sqlite)).into_sql_str();
        let prepared = (&mut sqlite).prepare(text).await;
        assert!(prepared.is_ok(), "SQLite, {function}: {prepared:?}");
    }
    let count = statements.len();
    assert!(count > 50, "only {count} statements were found");
}

/// Only transitions write the state of a node. Other statements add nodes, extend leases, find the pool of a node of the original, or
/// note probes.
#[test]
fn only_transitions_write_nodes() {
    let writers = |verb: &str| {
        let statements = statements();
        let writing = statements.iter().filter(|each| each.text.contains(verb));
        let mut functions: Vec<_> = writing.map(|each| each.function.clone()).collect();
        functions.sort();
        functions
    };
    assert_eq!(
        writers("UPDATE nodes "),
        ["claim_due", "renew_lease", "set_pool", "update"]
    );
    assert_eq!(
        writers("INSERT INTO nodes "),
        ["insert_node", "insert_provisioning_nodes"]
    );
    assert!(writers("DELETE FROM nodes ").is_empty());
}
