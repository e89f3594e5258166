//! Violates each rule in each way that it detects.

use crate::source::Source;
use crate::{cycles, rules};

/// Returns the violations in a file with a `//!` line and this code.
fn violations(path: &str, code: &str) -> Vec<String> {
    rules::check(&Source::parse(path, &format!("//! A file.\n{code}")))
}

fn assert_violation(path: &str, code: &str, line: usize, part_of_rule: &str) {
    let found = violations(path, code);
    let place = format!("{path}:{line}: ");
    assert!(
        found.len() == 1 && found[0].starts_with(&place) && found[0].contains(part_of_rule),
        "{path}: {code:?} should have one violation, at line {line}, of {part_of_rule:?}: {found:?}"
    );
}

fn assert_valid(path: &str, code: &str) {
    assert_eq!(
        violations(path, code),
        Vec::<String>::new(),
        "{path}: {code}"
    );
}

const HTTP: &str = "crates/duffy-server/src/http/pools.rs";
const DB: &str = "crates/duffy-server/src/db/pools.rs";
const LIFECYCLE: &str = "crates/duffy-server/src/lifecycle/fill.rs";
const NODES: &str = "crates/duffy-server/src/nodes/ssh/native.rs";
const WORKER: &str = "crates/duffy-server/src/worker.rs";
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
        "const Q: &str = r#\"\n  UPDATE nodes SET x = 1\"#;",
        "fn f() { let q = format!(\"INSERT INTO {t} VALUES (1)\"); }",
        "fn f() { select! { x = sqlx::query::<Row>(y) => a < b } }",
        "#[derive(Debug, sqlx::FromRow)]\nstruct A;",
    ] {
        assert_violation(HTTP, code, 2, "SQL belongs in");
        assert_valid(DB, code);
    }
    assert_violation(LIFECYCLE, "\n\nuse sqlx::Row;", 4, "SQL belongs in");
    assert_violation(
        "crates/duffy/src/admin.rs",
        "use sqlx::Row;",
        2,
        "SQL belongs in",
    );
    assert_valid(
        HTTP,
        "// sqlx::query(\"SELECT 1\")\n/// SELECT\nconst A: &str = \"Select a pool\";",
    );
    for test in ["test", "all(test, feature = \"app\")"] {
        let code = format!("#[cfg({test})]\nmod tests {{ use sqlx::Row; }}");
        assert_valid(HTTP, &code);
        assert_violation(
            HTTP,
            &format!("{code}\nuse sqlx::Row;"),
            4,
            "SQL belongs in",
        );
    }
    let struct_code = "struct A { #[cfg(test)] b: sqlx::Row,\nc: sqlx::Row }";
    assert_violation(HTTP, struct_code, 3, "SQL belongs in");
    assert_violation(
        HTTP,
        "#[cfg(not(test))]\nuse sqlx::Row;",
        3,
        "SQL belongs in",
    );
}

#[test]
fn axum_outside_http() {
    for code in [
        "use axum::Router;",
        "type A = axum::Router;",
        "use utoipa_axum::router;",
    ] {
        assert_violation(LIFECYCLE, code, 2, "axum belongs in");
        assert_violation(BINARY, code, 2, "axum belongs in");
        assert_valid(HTTP, code);
        assert_valid("crates/duffy-legacy/src/routes.rs", code);
        assert_valid("crates/duffy-web/src/docs.rs", code);
    }
}

#[test]
fn runtimes_outside_the_server() {
    for code in [
        "use tokio::fs;",
        "#[tokio::main]\nasync fn main() {}",
        "fn f() { println!(\"{}\", tokio::x()); }",
    ] {
        assert_violation("crates/duffy-client/src/lib.rs", code, 2, "async runtime");
        assert_valid(BINARY, code);
    }
}

#[test]
fn uses_against_the_arrows() {
    for (path, code) in [
        (DB, "use crate::lifecycle::pools::fill;"),
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
        assert_violation(path, code, 2, "must not use");
    }
    assert_valid(
        LIFECYCLE,
        "use crate::db::{self, Tx};\nuse super::{http, quota};\nfn f() { let worker = http::x(); }",
    );
    assert_valid(HTTP, "use crate::{db, lifecycle};");
    assert_valid(
        "crates/duffy-server/src/lib.rs",
        "pub mod http;\npub use crate::worker::Worker;",
    );
}

#[test]
fn sleeps_and_ignored_tests() {
    for code in [
        "use tokio::time::{Duration, sleep};",
        "async fn f() { tokio::time::sleep(d).await; }",
    ] {
        assert_violation(TEST, code, 2, "do not sleep");
        assert_valid(WORKER, code);
        assert_violation(
            WORKER,
            &format!("#[cfg(test)]\nmod tests {{ {code} }}"),
            3,
            "do not sleep",
        );
    }
    for code in [
        "#[ignore]\nfn f() {}",
        "#[ignore = \"slow\"]\nfn f() {}",
        "#[cfg_attr(unix, ignore)]\nfn f() {}",
        "proptest! { #[ignore] fn f() {} }",
    ] {
        assert_violation(TEST, code, 2, "no test is ignored");
    }
    assert_valid(TEST, "// #[ignore]\n#[serde(ignore)]\nstruct A;");
}

#[test]
fn files_without_a_heading_and_long_files() {
    let found = rules::check(&Source::parse(HTTP, "use std::fmt;\n"));
    assert!(
        found.len() == 1 && found[0].contains(":1: a file starts with"),
        "{found:?}"
    );
    let line = "const A: u8 = 1;\n";
    assert_valid(HTTP, &line.repeat(399));
    assert_violation(HTTP, &line.repeat(400), 401, "at most 400 lines");
    let module = "crates/duffy-server/src/worker/mod.rs";
    assert_violation(module, "struct A;\n", 1, "a module is in foo.rs");
    let tests = format!(
        "{}#[cfg(test)]\nmod tests {{\n{}}}",
        line.repeat(390),
        line.repeat(100)
    );
    assert_valid(HTTP, &tests);
    assert_valid(TEST, &line.repeat(1000));
}

/// Returns the sources of a crate with these files.
fn sources(files: &[(&str, &str)]) -> Vec<Source> {
    let parse = |(file, code): &(&str, &str)| Source::parse(&format!("crates/x/src/{file}"), code);
    files.iter().map(parse).collect()
}

/// Returns the cycles in a crate with these files.
fn cycles(files: &[(&str, &str)]) -> Vec<String> {
    cycles::find(&sources(files)).into_keys().collect()
}

#[test]
fn files_that_use_each_other() {
    let lib = ("lib.rs", "mod a; mod b; pub use b::B;");
    let a = ("a.rs", "use crate::b::B;");
    for code in [
        "fn f(a: crate::a::A) {}",
        "use super::a::A;",
        "use crate::a; fn f() { a::f() }",
        "pub use crate::a::A;",
        "mod inner { use super::super::a::A; }",
        "fn f() { vec![crate::a::MAX < 1] }",
    ] {
        assert_eq!(
            cycles(&[lib, a, ("b.rs", code)]),
            ["x: a.rs b.rs"],
            "{code}"
        );
    }
    for code in [
        "use other::a::A;",
        "fn f(a: u8) { a }",
        "#[cfg(test)] use super::a::A;",
        "pub(super) struct B;",
        "pub(in crate::a) struct B;",
    ] {
        assert!(cycles(&[lib, a, ("b.rs", code)]).is_empty(), "{code}");
    }
    let by_way = [
        (
            "lib.rs",
            "mod a; mod b; mod c; pub use c::C as D; use b::B;",
        ),
        ("a.rs", "use crate::D;"),
        ("b.rs", "fn f() { super::a::f() }"),
        ("c/mod.rs", "mod d; pub use d::*; use crate::B;"),
        ("c/d.rs", "use super::C;"),
    ];
    assert_eq!(cycles(&by_way), ["x: a.rs b.rs c/mod.rs"]);
    let parent = [
        ("lib.rs", "mod a; use a::A; struct B;"),
        ("a.rs", "use super::B;"),
    ];
    assert_eq!(cycles(&parent), ["x: a.rs lib.rs"]);
}

#[test]
fn a_cycle_names_the_lines_of_its_uses() {
    let files = [("lib.rs", "mod a;\n\nuse a::A;"), ("a.rs", "use crate::B;")];
    let uses = &cycles::find(&sources(&files))["x: a.rs lib.rs"];
    let line = "crates/x/src/lib.rs:3: uses crates/x/src/a.rs\n";
    assert!(uses.contains(line), "{uses}");
}

#[test]
fn manifests_without_lints_or_dependents() {
    let (lints, deny) = (
        "\n[lints]\nworkspace = true\n",
        "{ crate = \"x\", wrappers = [] }",
    );
    let violations =
        |name, text| rules::check_manifest(&format!("crates/{name}/Cargo.toml"), text, deny);
    assert_eq!(violations("x", lints), Vec::<String>::new());
    assert!(violations("x", "\n[lints]\nclippy = 1\n")[0].contains(":1: inherit the lints"));
    assert!(violations("new", lints)[0].contains("deny.toml"));
}
