//! `duffy setup-db` on an SQLite file.

use std::fs;

use crate::run;

#[test]
fn tables_and_test_data_are_created_once() {
    let dir = tempfile::tempdir().unwrap();
    for (args, printed) in [
        (&["setup-db"][..], ""),
        (
            &["setup-db", "--test-data"],
            "Created test data. The keys of its tenants are public, keep it out of production:\n\
             \tadmin:ae6c10d0-0b13-554c-b976-a05d8a18f0cc\n\
             \ttenant:a8b9899d-b128-59a1-aa86-754920b7f5ed\n",
        ),
    ] {
        let file = dir.path().join(format!("{}.sqlite", args.len()));
        let config = format!(
            "database: {{sqlalchemy: {{sync_url: 'sqlite:///{}'}}}}\n",
            file.display()
        );
        fs::write(dir.path().join("c.yaml"), config).unwrap();
        let args = [&["-c", "c.yaml"], args].concat();
        assert_eq!(
            run(dir.path(), &args),
            format!(
                "exit: 0\n----- stdout\nCreated the database's tables.\n{printed}----- stderr\n"
            )
        );
        let again = run(dir.path(), &args);
        assert!(
            again.starts_with("exit: 1\n----- stdout\n----- stderr\nerror: "),
            "{again}"
        );
    }
}
