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
    use super::MigrationCommand;
    use crate::commands::server_calls::{Schema, connect};
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
    pub(super) fn run(schema: &impl Schema, command: &MigrationCommand) -> Result<String, Failure> {
        let report = |done: &str, nothing: &str, reached: Option<String>| match reached {
            Some(revision) => format!("{done} {revision}"),
            None => nothing.to_owned(),
        };
        match command {
            MigrationCommand::Create { .. } => Ok(String::new()),
            MigrationCommand::DbVersion => Ok(schema.current()?.unwrap_or_default()),
            MigrationCommand::Upgrade { version } => {
                let reached = schema.upgrade(version)?;
                Ok(report("Upgraded to:", "Nothing to upgrade.", reached))
            }
            MigrationCommand::Downgrade { version } => {
                let reached = schema.downgrade(version)?;
                Ok(report("Downgraded to:", "Nothing to downgrade.", reached))
            }
        }
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use clap::Parser;

    use super::migrate::run;
    use crate::commands::server_calls::Schema;
    use crate::failure::Failure;

    /// A schema that repeats what it was asked for.
    struct Echo(Option<&'static str>);

    impl Schema for Echo {
        fn setup(&self, _: bool) -> Result<Vec<(String, String)>, Failure> {
            Ok(Vec::new())
        }

        fn current(&self) -> Result<Option<String>, Failure> {
            Ok(self.0.map(str::to_owned))
        }

        fn upgrade(&self, version: &str) -> Result<Option<String>, Failure> {
            Ok(self.0.map(|reached| format!("{version} -> {reached}")))
        }

        fn downgrade(&self, version: &str) -> Result<Option<String>, Failure> {
            self.upgrade(version)
        }
    }

    #[test]
    fn versions_and_what_was_done() {
        let migration = |echo: Echo, line: &[&str]| {
            let line = ["duffy", "migration"].iter().chain(line);
            let crate::cli::Command::Migration(command) =
                crate::cli::Cli::try_parse_from(line).unwrap().command
            else {
                panic!("no migration command");
            };
            run(&echo, &command).unwrap()
        };
        assert_eq!(
            migration(Echo(Some("a (head)")), &["db-version"]),
            "a (head)"
        );
        assert_eq!(migration(Echo(None), &["db-version"]), "");
        assert_eq!(
            migration(Echo(Some("a")), &["upgrade"]),
            "Upgraded to: head -> a"
        );
        assert_eq!(
            migration(Echo(Some("a")), &["upgrade", "+1"]),
            "Upgraded to: +1 -> a"
        );
        assert_eq!(migration(Echo(None), &["upgrade"]), "Nothing to upgrade.");
        assert_eq!(
            migration(Echo(Some("a")), &["downgrade"]),
            "Downgraded to: -1 -> a"
        );
        assert_eq!(
            migration(Echo(Some("a")), &["downgrade", "-2"]),
            "Downgraded to: -2 -> a"
        );
        assert_eq!(
            migration(Echo(None), &["downgrade", "base"]),
            "Nothing to downgrade."
        );
    }
}
