//! `duffy migration`: brings the database's tables to another version.

use std::process::ExitCode;

use clap::Subcommand;

use crate::config::Loaded;

/// What to do with the tables.
#[derive(Debug, Subcommand)]
pub enum MigrationCommand {
    /// Say where migrations are written (for developers)
    #[command(after_help = "\
Example:
  duffy migration create \"add a column\"

Migrations are part of the program's source, so this command makes none: it says where to \
write it, exit code 1.")]
    Create {
        /// Accepted for compatibility
        #[arg(long, overrides_with = "no_autogenerate")]
        autogenerate: bool,

        #[arg(long, hide = true, overrides_with = "autogenerate")]
        no_autogenerate: bool,

        /// What the migration is for
        #[arg(required = true)]
        comment: Vec<String>,
    },
    /// Show the version of the database's tables
    #[command(after_help = "\
Example:
  duffy migration db-version

`(head)` stands behind the newest version. A database without a version prints an empty line.")]
    DbVersion,
    /// Bring the tables to a newer version
    #[command(after_help = "\
Examples:
  duffy migration upgrade                  To the newest
  duffy migration upgrade +1               One step")]
    Upgrade {
        /// A version, `head` for the newest, or `+N` for N steps
        #[arg(default_value = "head")]
        version: String,
    },
    /// Bring the tables back to an older version
    #[command(after_help = "\
Examples:
  duffy migration downgrade                One step
  duffy migration downgrade 6654d536b836   To the newest version that Duffy 3.4.0 knows")]
    Downgrade {
        /// A version, `base` for an empty database, or `-N` for N steps
        #[arg(default_value = "-1", allow_hyphen_values = true)]
        version: String,
    },
}

impl MigrationCommand {
    pub const EXAMPLES: &str = "\
Examples:
  duffy migration db-version
  duffy migration upgrade";
}

/// Never reached: the feature is missing.
#[cfg(not(feature = "server"))]
pub fn main(_: &MigrationCommand, _: &Loaded) -> ExitCode {
    ExitCode::FAILURE
}

/// Runs one of them.
#[cfg(feature = "server")]
pub fn main(command: &MigrationCommand, loaded: &Loaded) -> ExitCode {
    crate::logging::init(loaded.command_level());
    crate::output::finish(migrate::migrate(command, loaded))
}

#[cfg(feature = "server")]
mod migrate {
    use duffy_server::db::Db;
    use duffy_server::db::migrate::{self, MigrateError, Revision};

    use super::MigrationCommand;
    use crate::commands::server_calls::{Server, connect};
    use crate::config::Loaded;
    use crate::failure::Failure;
    use crate::output;

    pub(super) fn migrate(command: &MigrationCommand, loaded: &Loaded) -> Result<(), Failure> {
        if matches!(command, MigrationCommand::Create { .. }) {
            return Err(Failure(
                "migrations are part of the program's source: CONTRIBUTING.md says under \"add a migration\" where to write one"
                    .to_owned(),
            ));
        }
        output::data(&run(&connect(loaded)?, command)?)
    }

    /// Does it, and says what to print.
    pub(super) fn run(server: &Server, command: &MigrationCommand) -> Result<String, Failure> {
        server.with_database(false, async |db| run_on(&db, command).await)
    }

    async fn run_on(db: &Db, command: &MigrationCommand) -> Result<String, MigrateError> {
        let report = |done: &str, nothing: &str, (from, to): (Revision, Revision)| {
            if from == to {
                nothing.to_owned()
            } else {
                format!("{done} {to}")
            }
        };
        Ok(match command {
            MigrationCommand::Create { .. } => String::new(),
            MigrationCommand::DbVersion => match migrate::current(db).await? {
                Revision::BASE => String::new(),
                revision => revision.to_string(),
            },
            MigrationCommand::Upgrade { version } => {
                let moved = migrate::upgrade(db, version, &output::words).await?;
                report("Upgraded to:", "Nothing to upgrade.", moved)
            }
            MigrationCommand::Downgrade { version } => {
                let moved = migrate::downgrade(db, version, &output::words).await?;
                report("Downgraded to:", "Nothing to downgrade.", moved)
            }
        })
    }
}

#[cfg(feature = "sqlite")]
#[cfg(test)]
mod tests {
    use clap::Parser;
    use duffy_server::db::migrate::Revision;

    use super::migrate::run;
    use crate::commands::server_calls::scratch_server;
    use crate::failure::Failure;

    #[test]
    fn versions_and_what_was_done() {
        let (_directory, server) = scratch_server();
        let migration = |line: &str| {
            let line = ["duffy", "migration"].into_iter().chain(line.split(' '));
            let crate::cli::Command::Migration(command) =
                crate::cli::Cli::try_parse_from(line).unwrap().command
            else {
                panic!("no migration command");
            };
            run(&server, &command)
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
        let Err(Failure(refused)) = migration("upgrade nope") else {
            panic!("there is no such revision");
        };
        assert!(refused.contains("\"nope\""), "{refused}");
    }
}
