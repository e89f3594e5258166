//! The rules for sources. Each returns one line per violation: `file:line: rule`.

use crate::source::{Source, is_test_file};

/// The maximum number of lines of a file, without its tests.
const MAX_LINES: usize = 400;

const SERVER: &str = "crates/duffy-server/src/";

/// Crates that only some files may use. Tests are exempt.
struct Reserved {
    names: &'static [&'static str],
    /// Prefixes of the paths of these files.
    only_in: &'static [&'static str],
    rule: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        names: &["sqlx"],
        only_in: &["crates/duffy-server/src/db"],
        rule: "SQL belongs in duffy-server's db/",
    },
    Reserved {
        names: &["axum", "utoipa_axum", "axum_core"],
        only_in: &[
            "crates/duffy-server/src/http",
            "crates/duffy-legacy/src/",
            "crates/duffy-web/src/",
        ],
        rule: "axum belongs in duffy-server's http/, duffy-legacy and duffy-web",
    },
    Reserved {
        names: &["tokio", "tower_http"],
        only_in: &[
            "crates/duffy-legacy/",
            "crates/duffy-web/",
            "crates/duffy-server/",
            "crates/duffy-sim/",
            "crates/duffy/",
        ],
        rule: "duffy-api, duffy-config and duffy-client use no async runtime",
    },
];

/// Modules of duffy-server, and the modules that they must not use.
const ARROWS: &[(&str, &[&str])] = &[
    ("db", &["lifecycle", "nodes", "worker", "http"]),
    ("lifecycle", &["worker", "http"]),
    ("nodes", &["db", "lifecycle", "worker", "http"]),
    ("worker", &["http"]),
    ("http", &["worker"]),
    ("process", &["db", "lifecycle", "nodes", "worker", "http"]),
    ("clock", &["db", "lifecycle", "nodes", "worker", "http"]),
];

/// Prefixes of SQL statements, which have keywords in capitals.
const SQL: &[&str] = &[
    "SELECT ",
    "INSERT INTO ",
    "UPDATE ",
    "DELETE FROM ",
    "CREATE TABLE ",
    "CREATE INDEX ",
    "CREATE UNIQUE INDEX ",
    "ALTER TABLE ",
    "DROP TABLE ",
    "NOTIFY ",
    "LISTEN ",
    "PRAGMA ",
    "BEGIN IMMEDIATE",
    "WITH RECURSIVE ",
];

/// Returns all violations in a file.
pub fn check(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    let mut report =
        |line: usize, rule: &str| violations.push(format!("{}:{line}: {rule}", source.path));
    check_reserved(source, &mut report);
    check_sql_text(source, &mut report);
    check_arrows(source, &mut report);
    check_tests(source, &mut report);
    if !source.first_line.starts_with("//!") {
        report(
            1,
            "a file starts with a short //! comment that describes it",
        );
    }
    if source.path.contains("/src/") && source.path.ends_with("/mod.rs") {
        report(1, "a module is in foo.rs, its submodules in foo/");
    }
    if !is_test_file(&source.path) && source.lines > MAX_LINES {
        report(
            source.lines,
            &format!("a file has at most {MAX_LINES} lines: split it"),
        );
    }
    violations
}

fn check_reserved(source: &Source, report: &mut impl FnMut(usize, &str)) {
    for reserved in RESERVED {
        let may = |place: &&str| source.path.starts_with(place);
        if reserved.only_in.iter().any(may) {
            continue;
        }
        for name in source.names.iter().filter(|name| !name.in_test) {
            let is_reserved = |part: &String| reserved.names.contains(&part.as_str());
            if name.path.iter().any(is_reserved) {
                report(name.line, reserved.rule);
            }
        }
    }
}

fn check_sql_text(source: &Source, report: &mut impl FnMut(usize, &str)) {
    if source.path.starts_with("crates/duffy-server/src/db") {
        return;
    }
    for (line, text) in &source.strings {
        // A statement can have a line break after any word.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if SQL.iter().any(|begin| text.starts_with(begin)) {
            report(*line, "SQL belongs in duffy-server's db/");
        }
    }
}

fn check_arrows(source: &Source, report: &mut impl FnMut(usize, &str)) {
    let arrows = ARROWS.iter().filter(|(from, _)| {
        source.path.starts_with(SERVER) && source.module.first().is_some_and(|it| it == from)
    });
    for (module, forbidden) in arrows {
        for name in source.names.iter().filter(|name| !name.in_test) {
            if let [root, target, ..] = &name.path[..]
                && root == "crate"
                && forbidden.contains(&target.as_str())
            {
                let rule =
                    format!("{module}/ must not use {target}/: http, worker → lifecycle → db");
                report(name.line, &rule);
            }
        }
    }
}

fn check_tests(source: &Source, report: &mut impl FnMut(usize, &str)) {
    for name in source.names.iter().filter(|name| name.in_test) {
        if name.path.windows(2).any(|two| two == ["time", "sleep"]) {
            report(
                name.line,
                "tests do not sleep: wait for a condition with a deadline",
            );
        }
    }
    for line in &source.ignored {
        report(*line, "no test is ignored: make it pass, or remove it");
    }
}

/// Checks that a manifest inherits the workspace's lints, and that deny.toml lists the crates that may depend on it. No crate depends on the
/// binary.
pub fn check_manifest(path: &str, text: &str, deny: &str) -> Vec<String> {
    let mut violations = Vec::new();
    if !text.contains("\n[lints]\nworkspace = true\n") {
        violations.push(format!("{path}:1: inherit the lints of the workspace"));
    }
    let name = path.split('/').nth(1).unwrap_or_default();
    if name != "duffy" && !deny.contains(&format!("crate = \"{name}\", wrappers")) {
        violations.push(format!(
            "{path}:1: list in deny.toml which crates may depend on {name}"
        ));
    }
    violations
}
