//! `duffy dev-shell`: becomes the shell of the configured database.
#![expect(clippy::disallowed_types, reason = "duffy becomes the shell")]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use duffy_config::{DatabaseUrl, PostgresUrl, SslMode};
use secrecy::ExposeSecret;

use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;

/// Nothing that would change anything.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy dev-shell                          psql or sqlite3 on the configured database
  echo 'SELECT name FROM tenants;' | duffy dev-shell

Whoever changes rows here goes past all rules. The program of the database must be installed.")]
pub struct DevShellArgs {
    /// Accepted for compatibility: there is one shell only
    #[arg(short = 't', long, hide = true)]
    shell_type: Option<String>,
}

/// Becomes the shell; returns only when that is impossible.
pub fn main(_: &DevShellArgs, loaded: &Loaded) -> ExitCode {
    crate::logging::init(loaded.command_level());
    output::finish(shell(loaded).and_then(become_shell))
}

/// A shell to become.
struct Shell {
    program: &'static str,
    package: &'static str,
    arguments: Vec<PathBuf>,
    environment: Vec<(&'static str, OsString)>,
}

fn shell(loaded: &Loaded) -> Result<Shell, Failure> {
    let database = loaded.config.database.as_ref().ok_or_else(|| {
        Failure(
            "the configuration has no section `database`; set database.sqlalchemy.sync_url and \
             async_url"
                .to_owned(),
        )
    })?;
    match database.url().map_err(Failure::new)? {
        DatabaseUrl::Sqlite { path } => sqlite3(path),
        DatabaseUrl::Postgres(url) => Ok(psql(url)),
    }
}

/// `sqlite3` would make a file that is not there.
fn sqlite3(path: &Path) -> Result<Shell, Failure> {
    if !path.is_file() {
        return Err(Failure(format!(
            "there is no file {}; `duffy setup-db` makes it",
            path.display()
        )));
    }
    // A name with a hyphen first would be an option.
    let path = if path.is_absolute() {
        path.to_owned()
    } else {
        Path::new(".").join(path)
    };
    Ok(Shell {
        program: "sqlite3",
        package: "`sqlite3` (Debian) or `sqlite` (Fedora)",
        arguments: vec![path],
        environment: Vec::new(),
    })
}

/// By the environment: everybody on the host can read command lines, and there is a password.
fn psql(url: &PostgresUrl) -> Shell {
    let ssl_mode = url.ssl_mode.map(|mode| match mode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    });
    let text = |text: &Option<String>| text.as_deref().map(OsString::from);
    let path = |path: &Option<PathBuf>| path.as_deref().map(OsString::from);
    let password = url.password.as_ref();
    let variables = [
        ("PGHOST", text(&url.host)),
        ("PGPORT", url.port.map(|port| port.to_string().into())),
        ("PGUSER", text(&url.user)),
        (
            "PGPASSWORD",
            password.map(|text| text.expose_secret().into()),
        ),
        ("PGDATABASE", text(&url.database)),
        ("PGSSLMODE", ssl_mode.map(OsString::from)),
        ("PGSSLROOTCERT", path(&url.ssl_root_cert)),
        ("PGSSLCERT", path(&url.ssl_cert)),
        ("PGSSLKEY", path(&url.ssl_key)),
        ("PGAPPNAME", text(&url.application_name)),
        (
            "PGCONNECT_TIMEOUT",
            url.connect_timeout
                .map(|timeout| timeout.as_secs().to_string().into()),
        ),
        ("PGOPTIONS", text(&url.options)),
    ];
    let set = |(name, value): (&'static str, Option<OsString>)| Some((name, value?));
    Shell {
        program: "psql",
        package: "`postgresql-client` (Debian) or `postgresql` (Fedora)",
        arguments: Vec::new(),
        environment: variables.into_iter().filter_map(set).collect(),
    }
}

fn become_shell(shell: Shell) -> Result<(), Failure> {
    let error = Command::new(shell.program)
        .args(shell.arguments)
        .envs(shell.environment)
        .exec();
    Err(Failure(match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "the database's shell, {}, is not there; install the package {}",
            shell.program, shell.package
        ),
        _ => format!("cannot run {}: {error}", shell.program),
    }))
}
