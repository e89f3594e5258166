//! The rules for sources. Each gives a line per breach: `file:line: what is wrong, and where it belongs`.

use crate::source::Source;

/// How long a file may be without its tests.
const MAX_LINES: usize = 450;

const SERVER: &str = "crates/duffy-server/src/";

/// A name that may be used in some places only, in code that is not a test.
struct Reserved {
    /// Successive segments of a path.
    names: &'static [&'static [&'static str]],
    /// Where it may be: the beginnings of files' paths.
    only_in: &'static [&'static str],
    rule: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        names: &[&["sqlx"]],
        only_in: &["crates/duffy-server/src/db"],
        rule: "SQL stands only in duffy-server's db/",
    },
    Reserved {
        names: &[&["axum"], &["utoipa_axum"], &["axum_core"]],
        only_in: &["crates/duffy-server/src/http", "crates/duffy-legacy/src/"],
        rule: "axum is used only in duffy-server's http/ and in duffy-legacy",
    },
    Reserved {
        names: &[
            &["process", "Command"],
            &["tokio", "process"],
            &["Command", "new"],
            &["unistd", "fork"],
            &["unistd", "execv"],
            &["unistd", "execvp"],
            &["unistd", "execve"],
        ],
        // A simulated node runs what it is told by SSH, as a real one would. `dev-shell` becomes the shell that it starts.
        only_in: &[
            "crates/duffy-server/src/process",
            "crates/duffy-sim/src/",
            "crates/duffy/src/dev_shell",
        ],
        rule: "processes start only in duffy-server's process.rs",
    },
    Reserved {
        names: &[
            &["Utc", "now"],
            &["Local", "now"],
            &["SystemTime", "now"],
            &["Utc", "today"],
        ],
        only_in: &["crates/duffy-server/src/clock.rs"],
        rule: "the time comes from a Clock (clock.rs)",
    },
];

/// Which modules of duffy-server a module must not know.
const ARROWS: &[(&str, &[&str])] = &[
    ("db", &["lifecycle", "nodes", "worker", "http"]),
    ("lifecycle", &["worker", "http"]),
    ("nodes", &["db", "lifecycle", "worker", "http"]),
    ("worker", &["http"]),
    ("http", &["worker"]),
    ("process", &["db", "lifecycle", "nodes", "worker", "http"]),
    ("clock", &["db", "lifecycle", "nodes", "worker", "http"]),
];

/// Beginnings of SQL, as it is written here: key words in capitals.
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

/// All breaches of all rules in a file.
pub fn check(source: &Source) -> Vec<String> {
    let mut broken = Vec::new();
    let mut report =
        |line: usize, rule: &str| broken.push(format!("{}:{line}: {rule}", source.path));
    check_reserved(source, &mut report);
    check_sql_text(source, &mut report);
    check_arrows(source, &mut report);
    check_tests(source, &mut report);
    if !source.first_line.starts_with("//!") {
        report(1, "a file opens with a short //! that says what it is");
    }
    if !source.is_test_file() && source.lines > MAX_LINES {
        report(
            source.lines,
            &format!("a file has at most {MAX_LINES} lines: split it by noun"),
        );
    }
    broken
}

fn check_reserved(source: &Source, report: &mut impl FnMut(usize, &str)) {
    for reserved in RESERVED {
        if reserved
            .only_in
            .iter()
            .any(|place| source.path.starts_with(place))
        {
            continue;
        }
        for path in source.paths.iter().filter(|path| !path.in_test) {
            let named = reserved
                .names
                .iter()
                .any(|name| contains(&path.value, name));
            // The builder of clap has a Command, too.
            if named && path.value.first().is_none_or(|first| first != "clap") {
                report(path.line, reserved.rule);
            }
        }
    }
}

fn check_sql_text(source: &Source, report: &mut impl FnMut(usize, &str)) {
    if source.path.starts_with("crates/duffy-server/src/db") {
        return;
    }
    for string in source.strings.iter().filter(|string| !string.in_test) {
        // A statement in a literal may be wrapped after any word, and continued with a backslash.
        let text = string.value.replace("\\n", " ").replace('\\', " ");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if SQL.iter().any(|begin| text.starts_with(begin)) {
            report(string.line, "SQL stands only in duffy-server's db/");
        }
    }
}

fn check_arrows(source: &Source, report: &mut impl FnMut(usize, &str)) {
    let Some(inner) = source.path.strip_prefix(SERVER) else {
        return;
    };
    let module = inner.split(['/', '.']).next().unwrap_or_default();
    let Some((_, forbidden)) = ARROWS.iter().find(|(name, _)| *name == module) else {
        return;
    };
    for path in source.paths.iter().filter(|path| !path.in_test) {
        let above = ["crate", "super", "self", "duffy_server"];
        let target = path
            .value
            .iter()
            .find(|segment| !above.contains(&segment.as_str()));
        let leads_up = path
            .value
            .first()
            .is_some_and(|first| first == "crate" || first == "super");
        if let Some(target) =
            target.filter(|target| leads_up && forbidden.contains(&target.as_str()))
        {
            let rule = format!("{module}/ must not know {target}/: http, worker → lifecycle → db");
            report(path.line, &rule);
        }
    }
}

fn check_tests(source: &Source, report: &mut impl FnMut(usize, &str)) {
    for path in source.paths.iter().filter(|path| path.in_test) {
        if contains(&path.value, &["thread", "sleep"]) || contains(&path.value, &["time", "sleep"])
        {
            report(
                path.line,
                "tests do not sleep: wait for a condition with a deadline",
            );
        }
    }
    for attribute in &source.attributes {
        let words: Vec<&str> = attribute.value.iter().map(String::as_str).collect();
        let ignores = words.first() == Some(&"ignore")
            || (words.first() == Some(&"cfg_attr") && words.contains(&"ignore"));
        if ignores {
            report(
                attribute.line,
                "no test is ignored: make it pass, or remove it",
            );
        }
    }
}

fn contains(path: &[String], name: &[&str]) -> bool {
    path.windows(name.len()).any(|window| window == name)
}
