//! The arguments of `duffy setup-db`, `migration` and `dev-shell`.

use clap::{Args, Subcommand};

/// What to put into the tables.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy setup-db
  duffy -c dev.yaml setup-db --test-data

A database that already has one of the tables is left unchanged; the exit code is then 1. To \
upgrade such a database, use `duffy migration upgrade`.")]
pub struct SetupDbArgs {
    /// Add tenants and nodes for testing; the API keys of these tenants are public
    #[arg(long, overrides_with = "no_test_data")]
    pub test_data: bool,

    #[arg(long, hide = true, overrides_with = "test_data")]
    no_test_data: bool,
}

/// What to do with the tables.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  duffy migration db-version
  duffy migration upgrade")]
pub enum MigrationCommand {
    /// Show where migrations are written (for developers)
    #[command(after_help = "\
Example:
  duffy migration create \"add a column\"

Migrations are part of the program's source, so this command creates none. It says where to \
write one; the exit code is 1.")]
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

`(head)` marks the newest version. For a database without a version, an empty line is printed.")]
    DbVersion,
    /// Upgrade the tables to a newer version
    #[command(after_help = "\
Examples:
  duffy migration upgrade                  To the newest
  duffy migration upgrade +1               One step")]
    Upgrade {
        /// A version, `head` for the newest, or `+N` for N steps
        #[arg(default_value = "head")]
        version: String,
    },
    /// Downgrade the tables to an older version
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

/// An option without effect.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy dev-shell                          psql or sqlite3 on the configured database
  echo 'SELECT name FROM tenants;' | duffy dev-shell

Changes made in this shell bypass all of Duffy's rules. The database's shell must be installed.")]
pub struct DevShellArgs {
    /// Accepted for compatibility: there is only one shell
    #[arg(short = 't', long, hide = true)]
    shell_type: Option<String>,
}
