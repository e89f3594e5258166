//! The revisions of the schema. Their statements are in `revisions/`: one file to upgrade, one to downgrade.
//!
//! A file's name is `NUMBER_ID_TITLE.up.sql` or `.down.sql`. Where the engines need different statements, there are two
//! files instead, `.up.postgres.sql` and `.up.sqlite.sql`. A statement ends with `;` at the end of a line; a comment has
//! lines of its own, which begin with `--`.
//!
//! The first four revisions, the base among them, are the original's, under its ids, so that `alembic_version` means the
//! same to both programs. Columns added later are nullable or have a default: the original still runs on them.

/// One step from a schema to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Its id in `alembic_version`.
    pub(super) id: &'static str,
    /// What it is for.
    pub(super) title: &'static str,
    pub(super) up: Script,
    pub(super) down: Script,
}

/// The text of a file for PostgreSQL, and for SQLite.
pub(super) type Script = (&'static str, &'static str);

/// The file of this name, or with `per engine` the two files.
macro_rules! script {
    ($name:literal) => {
        (
            include_str!(concat!("revisions/", $name, ".sql")),
            include_str!(concat!("revisions/", $name, ".sql")),
        )
    };
    ($name:literal per engine) => {
        (
            include_str!(concat!("revisions/", $name, ".postgres.sql")),
            include_str!(concat!("revisions/", $name, ".sqlite.sql")),
        )
    };
}

/// Duffy's tables.
pub(super) const TABLES: [&str; 8] = [
    "alembic_version",
    "events",
    "idempotency_keys",
    "nodes",
    "pool_states",
    "sessions",
    "sessions_nodes",
    "tenants",
];

/// The oldest known schema, before the first numbered revision.
pub(super) const BASE: Script = script!("0000_base.up" per engine);

/// All revisions, oldest first.
pub(super) const STEPS: [Step; 9] = [
    Step {
        id: "ce2e575cb800",
        title: "session lifetimes of tenants",
        up: script!("0001_ce2e575cb800_session_lifetimes.up" per engine),
        down: script!("0001_ce2e575cb800_session_lifetimes.down"),
    },
    Step {
        id: "36cf064c0481",
        title: "failed nodes may share a name or address",
        up: script!("0002_36cf064c0481_failed_nodes.up"),
        down: script!("0002_36cf064c0481_failed_nodes.down"),
    },
    Step {
        id: "6654d536b836",
        title: "indexes on nodes' states and sessions' nodes",
        up: script!("0003_6654d536b836_state_indexes.up"),
        down: script!("0003_6654d536b836_state_indexes.down"),
    },
    Step {
        id: "a81c5d2f0e37",
        title: "leases on nodes",
        up: script!("0004_a81c5d2f0e37_leases.up" per engine),
        down: script!("0004_a81c5d2f0e37_leases.down"),
    },
    Step {
        id: "d2f6409be713",
        title: "history, pools that fail, repair of nodes, idempotency keys",
        up: script!("0005_d2f6409be713_history_and_pool_states.up" per engine),
        down: script!("0005_d2f6409be713_history_and_pool_states.down"),
    },
    Step {
        id: "5b90c7e4a2d8",
        title: "digests of API keys, index on the history's times",
        up: script!("0006_5b90c7e4a2d8_api_key_digests.up"),
        down: script!("0006_5b90c7e4a2d8_api_key_digests.down"),
    },
    Step {
        id: "7c41e09b6d25",
        title: "index of registered nodes without a unique name",
        up: script!("0007_7c41e09b6d25_registered_nodes.up"),
        down: script!("0007_7c41e09b6d25_registered_nodes.down"),
    },
    Step {
        id: "c41e7a90d3b6",
        title: "when ready nodes were probed",
        up: script!("0008_c41e7a90d3b6_probes.up" per engine),
        down: script!("0008_c41e7a90d3b6_probes.down"),
    },
    Step {
        id: "e93b17d5c06a",
        title: "indexes on active nodes and sessions",
        up: script!("0009_e93b17d5c06a_active_indexes.up"),
        down: script!("0009_e93b17d5c06a_active_indexes.down"),
    },
];

/// Splits a file into statements, without its comments.
pub(super) fn split(file: &str) -> Vec<String> {
    let lines = file.lines().filter(|line| !line.starts_with("--"));
    let sql: String = lines.flat_map(|line| [line, "\n"]).collect();
    sql.split_terminator(";\n")
        .map(|statement| statement.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_statement_ends_at_the_end_of_a_line() {
        let file =
            "-- One;\nCREATE TABLE a (\n    b TEXT DEFAULT ';--'\n);\n\n-- Two\nDROP TABLE a;\n";
        assert_eq!(
            split(file),
            [
                "CREATE TABLE a (\n    b TEXT DEFAULT ';--'\n)",
                "DROP TABLE a",
            ]
        );
    }
}
