//! The plans of all statements on a database with a million retired nodes and sessions. What a statement reads must not
//! grow with the history.
//!
//! Plans differ between versions of the engines, so the test measures what a statement reads.

mod postgres;
mod rows;
mod sqlite;
mod values;

use super::Engines;
use super::statements::{Statement, statements};
use values::{Value, values};

/// The tables that have rows of the past. The others have a row for each tenant or pool, or are those of migrations.
const GROWING: [&str; 5] = [
    "events",
    "idempotency_keys",
    "nodes",
    "sessions",
    "sessions_nodes",
];

/// Functions that may read more, and why.
const MAY_READ_MORE: [(&str, &str); 3] = [
    ("list_nodes_ever", "an operator asks for the history"),
    (
        "delete_old_keys",
        "it reads all keys every ten minutes, which are those of one day",
    ),
    (
        "last_pool_of_node",
        "it runs once for a node that the original was deprovisioning",
    ),
];

/// What an engine says about a statement: its plan, and what is wrong with it.
struct Verdict {
    plan: String,
    faults: Vec<String>,
}

/// A database with rows.
trait Explain {
    /// Returns a verdict on each plan for these values. Runs the statement, and rolls it back.
    async fn explain(&mut self, statement: &Statement, values: &[Value]) -> Vec<Verdict>;
}

/// Returns a text for each fault of a statement.
async fn faults(
    engine: &mut impl Explain,
    name: &str,
    statement: &Statement,
    kinds: &[String],
) -> Vec<String> {
    let mut faults = Vec::new();
    for values in values(statement, kinds) {
        for verdict in engine.explain(statement, &values).await {
            let Statement { function, text } = statement;
            let given: Vec<_> = values.iter().map(Value::literal).collect();
            for fault in verdict.faults {
                faults.push(format!(
                    "{name}, {function}: {fault}\n{text}\nwith {}\n{}\n",
                    given.join(", "),
                    verdict.plan
                ));
            }
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_statement_reads_does_not_grow_with_the_history() {
    let engines = Engines::new().await;
    for db in engines.both() {
        db.close().await;
    }
    let (mut postgres, mut sqlite) = tokio::join!(
        postgres::Filled::new(&engines),
        sqlite::Filled::new(&engines)
    );
    let mut found = Vec::new();
    for statement in statements() {
        let kinds = postgres.parameters(&statement).await;
        let mut faulty = faults(&mut postgres, "PostgreSQL", &statement, &kinds).await;
        faulty.extend(faults(&mut sqlite, "SQLite", &statement, &kinds).await);
        let excuse = MAY_READ_MORE
            .iter()
            .find(|(function, _)| *function == statement.function);
        if let Some((function, why)) = excuse {
            assert!(!faulty.is_empty(), "{function} needs no exception: {why}");
        } else {
            found.extend(faulty);
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));

    // The test notices a missing index.
    let drop = "DROP INDEX nodes_active_id_index";
    postgres.run(drop).await;
    sqlite.run(drop).await;
    let pages = statements().into_iter();
    let pages = pages.filter(|each| each.function == "list_active_nodes_after");
    for page in pages {
        let kinds = postgres.parameters(&page).await;
        let faulty = faults(&mut postgres, "PostgreSQL", &page, &kinds).await;
        assert_eq!(faulty.len(), 2, "{faulty:?}");
        let faulty = faults(&mut sqlite, "SQLite", &page, &kinds).await;
        assert_eq!(faulty.len(), 1, "{faulty:?}");
    }
}
