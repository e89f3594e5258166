//! `duffy dev-shell`: becomes the shell of the configured database.
#![expect(clippy::disallowed_types, reason = "duffy becomes the shell")]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use duffy_config::{Config, DatabaseUrl, PostgresUrl, SslMode};
use secrecy::ExposeSecret;

use crate::failure::Failure;

/// Becomes the shell. Returns only if that is impossible.
pub fn run(config: &Config) -> Result<(), Failure> {
    let database = config.database.as_ref().ok_or_else(|| {
        Failure::new(
            "the configuration has no section `database`; set database.sqlalchemy.sync_url and \
             async_url",
        )
    })?;
    let shell = match database.url()? {
        DatabaseUrl::Sqlite { path } => sqlite3(path)?,
        DatabaseUrl::Postgres(url) => psql(url),
    };
    let error = Command::new(shell.program)
        .args(shell.argument)
        .envs(shell.environment)
        .exec();
    Err(match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(format_args!(
            "the database's shell, {}, is not there; install the package {}",
            shell.program, shell.package
        )),
        _ => Failure::new(format_args!("cannot run {}: {error}", shell.program)),
    })
}

/// The shell of a database.
struct Shell {
    program: &'static str,
    package: &'static str,
    argument: Option<PathBuf>,
    environment: Vec<(&'static str, OsString)>,
}

/// Refuses a file that does not exist, because `sqlite3` would create it.
fn sqlite3(path: &Path) -> Result<Shell, Failure> {
    if !path.is_file() {
        return Err(Failure::new(format_args!(
            "there is no file {}; `duffy setup-db` creates it",
            path.display()
        )));
    }
    // A relative path that starts with a hyphen would be an option.
    let path = Path::new(".").join(path);
    Ok(Shell {
        program: "sqlite3",
        package: "`sqlite3` (Debian) or `sqlite` (Fedora)",
        argument: Some(path),
        environment: Vec::new(),
    })
}

/// Passes the settings in the environment: everybody on the host can read command lines, and there is a password.
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
    let number = |number: u64| OsString::from(number.to_string());
    let password = url.password.as_ref();
    let variables = [
        ("PGHOST", text(&url.host)),
        ("PGPORT", url.port.map(|port| number(port.into()))),
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
            url.connect_timeout.map(|time| number(time.as_secs())),
        ),
        ("PGOPTIONS", text(&url.options)),
    ];
    let set = |(name, value): (&'static str, Option<OsString>)| Some((name, value?));
    Shell {
        program: "psql",
        package: "`postgresql-client` (Debian) or `postgresql` (Fedora)",
        argument: None,
        environment: variables.into_iter().filter_map(set).collect(),
    }
}
