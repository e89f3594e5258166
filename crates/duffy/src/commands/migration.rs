//! `duffy migration`: upgrades or downgrades the database's tables.

use duffy_config::Config;
use duffy_server::db::migrate::{self, Revision};

use super::database::with_database;
use crate::args::database::MigrationCommand;
use crate::failure::Failure;
use crate::output;

/// Runs a command and prints its result.
pub fn run(command: &MigrationCommand, config: &Config) -> Result<(), Failure> {
    output::data(&migrate(command, config)?)
}

/// Says what an upgrade or a downgrade did.
fn report(done: &str, nothing: &str, (from, to): (Revision, Revision)) -> String {
    if from == to {
        nothing.to_owned()
    } else {
        format!("{done} {to}")
    }
}

/// Runs a command and returns what to print.
fn migrate(command: &MigrationCommand, config: &Config) -> Result<String, Failure> {
    match command {
        MigrationCommand::Create { .. } => Err(Failure::new(
            "migrations are part of the program's source: CONTRIBUTING.md says under \"add a migration\" where to write one",
        )),
        MigrationCommand::DbVersion => with_database(config, false, async |db| {
            Ok(match migrate::current(db).await? {
                Revision::BASE => String::new(),
                revision => revision.to_string(),
            })
        }),
        MigrationCommand::Upgrade { version } => with_database(config, false, async |db| {
            let moved = migrate::upgrade(db, version, &output::words).await?;
            Ok(report("Upgraded to:", "Nothing to upgrade.", moved))
        }),
        MigrationCommand::Downgrade { version } => with_database(config, false, async |db| {
            let moved = migrate::downgrade(db, version, &output::words).await?;
            Ok(report("Downgraded to:", "Nothing to downgrade.", moved))
        }),
    }
}

#[cfg(feature = "sqlite")]
#[cfg(test)]
mod tests {
    use clap::Parser;
    use duffy_server::db::migrate::Revision;

    use super::migrate;
    use crate::commands::database::scratch_database;

    #[test]
    fn versions_and_what_was_done() {
        let (_directory, config) = scratch_database();
        let migration = |line: &str| {
            let line = ["duffy", "migration"].into_iter().chain(line.split(' '));
            let crate::cli::Command::Migration(command) =
                crate::cli::Cli::try_parse_from(line).unwrap().command
            else {
                panic!("no migration command");
            };
            migrate(&command, &config)
        };
        let revisions: Vec<_> = Revision::all()
            .map(|revision| revision.to_string())
            .collect();
        let [.., before, last, head] = &revisions[..] else {
            panic!("{revisions:?}");
        };
        assert!(head.ends_with(" (head)"), "{head}");
        for (line, printed) in [
            ("db-version", head.clone()),
            ("upgrade", "Nothing to upgrade.".to_owned()),
            ("downgrade", format!("Downgraded to: {last}")),
            ("db-version", last.clone()),
            ("upgrade +1", format!("Upgraded to: {head}")),
            ("downgrade -2", format!("Downgraded to: {before}")),
            ("upgrade", format!("Upgraded to: {head}")),
            ("downgrade base", "Downgraded to: <base>".to_owned()),
            ("downgrade base", "Nothing to downgrade.".to_owned()),
            ("db-version", String::new()),
        ] {
            assert_eq!(migration(line), Ok(printed), "{line}");
        }
        let refused = migration("upgrade nope").unwrap_err().text;
        assert!(refused.contains("\"nope\""), "{refused}");
    }
}
