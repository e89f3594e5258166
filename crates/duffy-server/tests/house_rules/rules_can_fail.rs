//! Each rule is broken here once in each way that it knows, so that it is known to work.

use crate::rules;
use crate::source::Source;

/// The line and the rule of each breach in a file of these lines, which a `//!` line precedes.
fn broken(path: &str, code: &str) -> Vec<String> {
    rules::check(&Source::parse(path, &format!("//! A file.\n{code}")))
}

fn assert_breaks(path: &str, code: &str, line: usize, part_of_rule: &str) {
    let found = broken(path, code);
    let place = format!("{path}:{line}: ");
    assert!(
        found.len() == 1 && found[0].starts_with(&place) && found[0].contains(part_of_rule),
        "{path}: {code:?} should break one rule, at line {line}, on {part_of_rule:?}: {found:?}"
    );
}

fn assert_keeps(path: &str, code: &str) {
    assert_eq!(broken(path, code), Vec::<String>::new(), "{path}: {code}");
}

const HTTP: &str = "crates/duffy-server/src/http/pools.rs";
const DB: &str = "crates/duffy-server/src/db/pools.rs";
const LIFECYCLE: &str = "crates/duffy-server/src/lifecycle/fill.rs";
const NODES: &str = "crates/duffy-server/src/nodes/ssh/native.rs";
const WORKER: &str = "crates/duffy-server/src/worker/mod.rs";
const BINARY: &str = "crates/duffy/src/main.rs";
const TEST: &str = "crates/duffy/tests/e2e/main.rs";

#[test]
fn sql_outside_db() {
    for code in [
        "use sqlx::PgPool;",
        "fn f(pool: &sqlx::PgPool) {}",
        "use {std::fmt, sqlx::{Row}};",
        "const Q: &str = \"SELECT 1\";",
        "const Q: &str = \"SELECT\\n 1\";",
        "let q = r#\"\n  UPDATE nodes SET x = 1\"#;",
        "let q = format!(\"INSERT INTO {t} VALUES (1)\");",
    ] {
        assert_breaks(HTTP, code, 2, "SQL stands only");
        assert_keeps(DB, code);
    }
    assert_breaks(LIFECYCLE, "\n\nuse sqlx::Row;", 4, "SQL stands only");
    assert_breaks(
        "crates/duffy/src/admin.rs",
        "use sqlx::Row;",
        2,
        "SQL stands only",
    );
    assert_keeps(
        HTTP,
        "// sqlx::query(\"SELECT 1\")\nconst A: &str = \"Select a pool\";",
    );
    assert_keeps(HTTP, "#[cfg(test)]\nmod tests { use sqlx::Row; }");
}

#[test]
fn axum_outside_http() {
    for code in [
        "use axum::Router;",
        "type A = axum::Router;",
        "use utoipa_axum::router;",
    ] {
        assert_breaks(LIFECYCLE, code, 2, "axum is used only");
        assert_breaks(BINARY, code, 2, "axum is used only");
        assert_keeps(HTTP, code);
        assert_keeps("crates/duffy-legacy/src/routes.rs", code);
    }
}

#[test]
fn processes_outside_process() {
    for code in [
        "use std::process::Command;",
        "use std::process::{ExitCode, Command};",
        "fn f() { tokio::process::Command::new(\"x\"); }",
        "use tokio::{fs, process};",
        "fn f() { proc::Command::new(\"x\"); }",
    ] {
        assert_breaks(NODES, code, 2, "processes start only");
        assert_breaks(BINARY, code, 2, "processes start only");
        assert_keeps("crates/duffy-server/src/process.rs", code);
        assert_keeps("crates/duffy-sim/src/shell.rs", code);
        assert_keeps(TEST, code);
    }
    assert_keeps(
        BINARY,
        "use std::process::ExitCode;\nfn f() { clap::Command::new(\"duffy\"); }",
    );
}

#[test]
fn time_outside_the_clock() {
    for code in [
        "fn f() { Utc::now(); }",
        "fn f() { chrono::Utc::now(); }",
        "fn f() { Local::now(); }",
        "use std::time; fn f() { time::SystemTime::now(); }",
    ] {
        assert_breaks(LIFECYCLE, code, 2, "from a Clock");
        assert_breaks("crates/duffy-client/src/lib.rs", code, 2, "from a Clock");
        assert_keeps("crates/duffy-server/src/clock.rs", code);
    }
    assert_keeps(LIFECYCLE, "fn f() { Instant::now(); }");
}

#[test]
fn arrows_against_the_stream() {
    for (path, code) in [
        (DB, "use crate::lifecycle::fill;"),
        (DB, "fn f() { crate::http::x(); }"),
        (DB, "use super::super::worker;"),
        (LIFECYCLE, "use crate::{db, http::ApiError};"),
        (LIFECYCLE, "use crate::worker::Wake;"),
        (
            "crates/duffy-server/src/lifecycle.rs",
            "use crate::worker::Wake;",
        ),
        (NODES, "use crate::db::Tx;"),
        (NODES, "use crate::http::ApiError;"),
        (NODES, "use crate::worker;"),
        (WORKER, "use crate::http::ApiError;"),
        (HTTP, "use crate::worker::Wake;"),
        ("crates/duffy-server/src/process.rs", "use crate::db;"),
        ("crates/duffy-server/src/clock.rs", "use crate::lifecycle;"),
    ] {
        assert_breaks(path, code, 2, "must not know");
    }
    assert_keeps(
        LIFECYCLE,
        "use crate::db::{self, Tx};\nuse super::quota;\nlet worker = http::x();",
    );
    assert_keeps(HTTP, "use crate::{db, lifecycle};");
    assert_keeps(
        "crates/duffy-server/src/lib.rs",
        "pub mod http;\npub use crate::worker::Worker;",
    );
}

#[test]
fn sleeps_and_ignored_tests() {
    for code in [
        "fn f() { std::thread::sleep(d); }",
        "use tokio::time::{Duration, sleep};",
        "async fn f() { tokio::time::sleep(d).await; }",
    ] {
        assert_breaks(TEST, code, 2, "do not sleep");
        assert_keeps(WORKER, code);
        assert_breaks(
            WORKER,
            &format!("#[cfg(test)]\nmod tests {{ {code} }}"),
            3,
            "do not sleep",
        );
    }
    for code in [
        "#[ignore]\nfn f() {}",
        "#[ignore = \"slow\"]",
        "#[cfg_attr(unix, ignore)]",
    ] {
        assert_breaks(TEST, code, 2, "no test is ignored");
    }
    assert_keeps(TEST, "// #[ignore]\n#[serde(ignore)]");
}

#[test]
fn files_without_a_heading_and_long_files() {
    let found = rules::check(&Source::parse(HTTP, "use std::fmt;\n"));
    assert!(
        found.len() == 1 && found[0].contains(":1: a file opens with"),
        "{found:?}"
    );
    let line = "const A: u8 = 1;\n";
    assert_keeps(HTTP, &line.repeat(449));
    assert_breaks(HTTP, &line.repeat(450), 451, "at most 450 lines");
    let tests = format!(
        "{}#[cfg(test)]\nmod tests {{\n{}}}",
        line.repeat(440),
        line.repeat(100)
    );
    assert_keeps(HTTP, &tests);
    assert_keeps(TEST, &line.repeat(1000));
}
