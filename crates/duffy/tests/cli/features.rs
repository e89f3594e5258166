//! A command whose feature this build lacks is refused before it reads anything.

use crate::run;

#[test]
fn missing_features_are_named() {
    let dir = tempfile::tempdir().unwrap();
    // It is invalid, so that a command that starts fails too.
    std::fs::write(dir.path().join("c.yaml"), "nonsense: 1\n").unwrap();
    for (command, feature, there) in [
        (&["serve"][..], "app", cfg!(feature = "app")),
        (&["serve-legacy"], "legacy", cfg!(feature = "legacy")),
        (&["worker", "-B"], "tasks", cfg!(feature = "tasks")),
        (
            &["client", "--format", "flat", "list-pools"],
            "client",
            cfg!(feature = "client"),
        ),
        (&["admin", "list-tenants"], "admin", cfg!(feature = "admin")),
        (&["setup-db"], "postgresql", cfg!(feature = "server")),
        (
            &["migration", "upgrade"],
            "postgresql",
            cfg!(feature = "server"),
        ),
    ] {
        let shown = run(dir.path(), &[&["-c", "c.yaml"], command].concat());
        let lacks = format!("this build of duffy lacks the feature `{feature}`");
        assert!(
            shown.starts_with("exit: 1\n----- stdout\n----- stderr\nerror: "),
            "{shown}"
        );
        assert_eq!(shown.contains(&lacks), !there, "{shown}");
    }
}
