//! Which crates may depend on which.

/// What a crate of the workspace may use of the others, and what it must do without.
struct Rule {
    name: &'static str,
    may_use: &'static [&'static str],
    without: &'static [&'static str],
}

const SERVER_CRATES: &[&str] = &[
    "axum",
    "hyper",
    "sqlx",
    "tokio",
    "russh",
    "tower",
    "tower-http",
];

const RULES: &[Rule] = &[
    Rule {
        name: "duffy-api",
        may_use: &[],
        without: SERVER_CRATES,
    },
    Rule {
        name: "duffy-config",
        may_use: &["duffy-api"],
        without: SERVER_CRATES,
    },
    Rule {
        name: "duffy-client",
        may_use: &["duffy-api"],
        without: SERVER_CRATES,
    },
    Rule {
        name: "duffy-legacy",
        may_use: &[
            "duffy-api",
            "duffy-client",
            "duffy-config",
            "duffy-listener",
        ],
        without: &["sqlx", "russh"],
    },
    Rule {
        name: "duffy-listener",
        may_use: &[],
        without: &["axum", "sqlx", "russh"],
    },
    Rule {
        name: "duffy-sim",
        may_use: &[],
        without: &["axum", "sqlx"],
    },
    Rule {
        name: "duffy-server",
        may_use: &["duffy-api", "duffy-config", "duffy-listener", "duffy-sim"],
        without: &["clap", "ureq"],
    },
    Rule {
        name: "duffy",
        may_use: &[
            "duffy-api",
            "duffy-client",
            "duffy-config",
            "duffy-legacy",
            "duffy-server",
            "duffy-sim",
        ],
        without: &["axum", "sqlx"],
    },
];

/// All breaches in a manifest. What only tests use is free.
pub fn check(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let name = path.split('/').nth(1).unwrap_or_default();
    let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
        return vec![format!(
            "{path}:1: {name} has no rule: say in house_rules what it may depend on"
        )];
    };
    for (line, dependency) in dependencies(text) {
        let ours = RULES.iter().any(|rule| rule.name == dependency);
        if ours && !rule.may_use.contains(&dependency.as_str()) {
            broken.push(format!(
                "{path}:{line}: {name} must not depend on {dependency}"
            ));
        } else if rule.without.contains(&dependency.as_str()) {
            broken.push(format!("{path}:{line}: {name} does without {dependency}"));
        }
    }
    let sections: Vec<&str> = text.lines().map(str::trim).collect();
    if !sections
        .windows(2)
        .any(|two| two == ["[lints]", "workspace = true"])
    {
        broken.push(format!(
            "{path}:1: the lints of the workspace are not taken over"
        ));
    }
    broken
}

/// The dependencies of a manifest with their lines: `[dependencies]`, `[build-dependencies]`, those of a target,
/// and tables of their own (`[dependencies.name]`). A renamed one counts with its real name.
fn dependencies(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (line, text) in text.lines().map(str::trim).enumerate() {
        if let Some(section) = text.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            let parts: Vec<&str> = section.split('.').collect();
            let kind = |part: &&str| matches!(*part, "dependencies" | "build-dependencies");
            inside = parts.last().is_some_and(kind);
            if let [.., before, name] = parts[..]
                && kind(&before)
            {
                found.push((line + 1, name.trim_matches('"').to_owned()));
            }
        } else if inside
            && let Some((key, value)) = text.split_once('=')
            && !text.starts_with('#')
        {
            let renamed = value
                .split_once("package")
                .and_then(|(_, rest)| rest.split('"').nth(1));
            let key = key
                .trim()
                .split('.')
                .next()
                .unwrap_or_default()
                .trim_matches('"');
            found.push((line + 1, renamed.unwrap_or(key).to_owned()));
        }
    }
    found
}

#[test]
fn forbidden_dependencies_are_found() {
    let lints = "\n[lints]\nworkspace = true\n";
    let broken = |name: &str, text: &str| {
        check(
            &format!("crates/{name}/Cargo.toml"),
            &format!("{text}{lints}"),
        )
    };
    for (name, text) in [
        ("duffy-api", "[dependencies]\ntokio.workspace = true"),
        (
            "duffy-api",
            "[dependencies]\n\nduffy-config = { workspace = true }",
        ),
        ("duffy-client", "[dependencies.axum]\nversion = \"1\""),
        ("duffy-config", "[build-dependencies]\nsqlx = \"1\""),
        (
            "duffy-config",
            "[target.'cfg(unix)'.dependencies]\nsqlx = \"1\"",
        ),
        (
            "duffy-legacy",
            "[dependencies]\nduffy-server.workspace = true",
        ),
        (
            "duffy-legacy",
            "[dependencies]\ndb = { package = \"sqlx\", version = \"1\" }",
        ),
        (
            "duffy-server",
            "[dependencies]\nduffy-legacy.workspace = true",
        ),
        (
            "duffy-sim",
            "[dependencies]\nduffy-server = { path = \"../duffy-server\" }",
        ),
        ("duffy", "[dependencies]\naxum.workspace = true"),
        ("duffy-new", "[dependencies]"),
    ] {
        assert_eq!(
            broken(name, text).len(),
            1,
            "{name}: {text}: {:?}",
            broken(name, text)
        );
    }
    assert_eq!(
        check("crates/duffy/Cargo.toml", "[lints]\nclippy = 1").len(),
        1
    );
    let fine = "[dependencies]\nduffy-api.workspace = true\n# axum\n[dev-dependencies]\naxum = \"1\"\n\
                [features]\ndefault = [\"axum\"]";
    assert_eq!(broken("duffy-legacy", fine), Vec::<String>::new());
}
