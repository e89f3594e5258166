//! Opening a database.

use std::sync::Arc;
use std::time::Duration;

use duffy_config::DatabaseUrl;

use super::connections::{Pool, Pools, RESERVED, Share};
use super::{Db, Deadlines, wake::Wake};

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server refuses or does not answer.
    #[error(
        "cannot connect to the database {place}: {cause}; check database.sqlalchemy.sync_url, and that the server runs and lets this user in"
    )]
    Connect {
        /// Where it is, and as which user.
        place: String,
        /// What the driver says.
        cause: sqlx::Error,
    },
    /// The file or its directory is not there.
    #[error(
        "there is no database {path}; create it with `duffy setup-db`, or correct database.sqlalchemy.sync_url"
    )]
    NoFile {
        /// The file.
        path: String,
    },
    /// The directory of the file is not there.
    #[error(
        "cannot create the database {path}: its directory does not exist; create it, or correct database.sqlalchemy.sync_url"
    )]
    NoDirectory {
        /// The file.
        path: String,
    },
    /// This build knows only the other engine.
    #[error("this build of duffy has no {engine}; install one with the feature `{feature}`")]
    NotBuiltIn {
        /// The engine's name.
        engine: &'static str,
        /// The feature that has it.
        feature: &'static str,
    },
}

/// How long a request for a connection may wait.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a writer of SQLite may wait for another one.
#[cfg(feature = "sqlite")]
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

impl Db {
    /// Opens the database and makes one connection, so that errors come out here.
    /// `pool_size` is the number of connections at most, without the reserved ones. A SQLite
    /// file is created only when `create` says so.
    #[cfg_attr(
        not(feature = "sqlite"),
        expect(unused_variables, reason = "only SQLite's files are created")
    )]
    pub async fn open(url: &DatabaseUrl, pool_size: u32, create: bool) -> Result<Db, ConnectError> {
        let pools = match url {
            #[cfg(feature = "postgresql")]
            DatabaseUrl::Postgres(settings) => open_postgres(settings, pool_size).await?,
            #[cfg(not(feature = "postgresql"))]
            DatabaseUrl::Postgres(_) => {
                return Err(ConnectError::NotBuiltIn {
                    engine: "PostgreSQL",
                    feature: "postgresql",
                });
            }
            #[cfg(feature = "sqlite")]
            DatabaseUrl::Sqlite { path } => open_sqlite(path, pool_size, create).await?,
            #[cfg(not(feature = "sqlite"))]
            DatabaseUrl::Sqlite { .. } => {
                return Err(ConnectError::NotBuiltIn {
                    engine: "SQLite",
                    feature: "sqlite",
                });
            }
        };
        Ok(Db {
            pools: Arc::new(pools),
            share: Share::General,
            deadlines: Deadlines::default(),
            wake: Arc::new(Wake::new()),
        })
    }
}

#[cfg(feature = "postgresql")]
async fn open_postgres(
    settings: &duffy_config::PostgresUrl,
    pool_size: u32,
) -> Result<Pools, ConnectError> {
    let options = postgres_options(settings);
    let place = format!(
        "{}@{}:{}/{}",
        options.get_username(),
        options
            .get_socket()
            .map_or(options.get_host().to_owned(), |path| path
                .display()
                .to_string()),
        options.get_port(),
        options.get_database().unwrap_or(options.get_username()),
    );
    let patience = settings.connect_timeout.unwrap_or(ACQUIRE_TIMEOUT);
    let pool = |size| {
        sqlx::postgres::PgPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(patience)
    };
    let connected = match try_postgres(&options, patience).await {
        // A server that is just starting, or busy, is worth waiting for.
        Ok(()) => pool(pool_size).connect_with(options.clone()).await,
        Err(cause) => Err(cause),
    };
    let general = connected.map_err(|cause| ConnectError::Connect { place, cause })?;
    let reserved = pool(RESERVED).connect_lazy_with(options);
    let (general, reserved) = (Pool::Postgres(general), Pool::Postgres(reserved));
    Ok(Pools::new(general, reserved, pool_size))
}

/// Whether there is a server that lets us in, or soon may. The pool, which has to outlast a server's restart, goes on
/// trying where nobody listens at all.
#[cfg(feature = "postgresql")]
async fn try_postgres(
    options: &sqlx::postgres::PgConnectOptions,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    use sqlx::{ConnectOptions, Connection};

    let Ok(connection) = tokio::time::timeout(patience, options.connect()).await else {
        return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    };
    match connection {
        Ok(connection) => connection.close().await,
        // `cannot_connect_now`, `too_many_connections`.
        Err(sqlx::Error::Database(cause))
            if cause
                .code()
                .is_some_and(|code| ["57P03", "53300"].contains(&code.as_ref())) =>
        {
            Ok(())
        }
        Err(cause) => Err(cause),
    }
}

#[cfg(feature = "postgresql")]
fn postgres_options(settings: &duffy_config::PostgresUrl) -> sqlx::postgres::PgConnectOptions {
    use duffy_config::SslMode;
    use secrecy::ExposeSecret;
    use sqlx::postgres::{PgConnectOptions, PgSslMode};

    let mut options = PgConnectOptions::new();
    options = options.application_name(settings.application_name.as_deref().unwrap_or("duffy"));
    if let Some(host) = &settings.host {
        options = if host.starts_with('/') {
            options.socket(host)
        } else {
            options.host(host)
        };
    }
    if let Some(port) = settings.port {
        options = options.port(port);
    }
    if let Some(user) = &settings.user {
        options = options.username(user);
    }
    if let Some(password) = &settings.password {
        options = options.password(password.expose_secret());
    }
    if let Some(database) = &settings.database {
        options = options.database(database);
    }
    if let Some(mode) = settings.ssl_mode {
        options = options.ssl_mode(match mode {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Allow => PgSslMode::Allow,
            SslMode::Prefer => PgSslMode::Prefer,
            SslMode::Require => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyFull => PgSslMode::VerifyFull,
        });
    }
    if let Some(file) = &settings.ssl_root_cert {
        options = options.ssl_root_cert(file);
    }
    if let Some(file) = &settings.ssl_cert {
        options = options.ssl_client_cert(file);
    }
    if let Some(file) = &settings.ssl_key {
        options = options.ssl_client_key(file);
    }
    // A connection that a dead or sleeping process holds must not hold its locks for ever.
    options = options.options([
        ("statement_timeout", "30s"),
        ("lock_timeout", "20s"),
        ("idle_in_transaction_session_timeout", "30s"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "30s"),
    ]);
    // What the URL says goes before: `-c name=value` or `--name=value`, any number of them.
    for word in settings
        .options
        .iter()
        .flat_map(|text| text.split_whitespace())
    {
        let setting = word.trim_start_matches("--").trim_start_matches("-c");
        if let Some((name, value)) = setting.split_once('=') {
            options = options.options([(name, value)]);
        }
    }
    options
}

#[cfg(feature = "sqlite")]
async fn open_sqlite(
    path: &std::path::Path,
    pool_size: u32,
    create: bool,
) -> Result<Pools, ConnectError> {
    use sqlx::sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    };

    let shown = path.display().to_string();
    if !path.exists() {
        if !create {
            return Err(ConnectError::NoFile { path: shown });
        }
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if directory.is_some_and(|directory| !directory.is_dir()) {
            return Err(ConnectError::NoDirectory { path: shown });
        }
        create_file(path).map_err(|cause| ConnectError::Connect {
            place: shown.clone(),
            cause: cause.into(),
        })?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // What was answered must not be forgotten when the machine loses power.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = |size| {
        SqlitePoolOptions::new()
            .max_connections(size)
            .acquire_timeout(ACQUIRE_TIMEOUT)
    };
    let connected = pool(pool_size).connect_with(options.clone()).await;
    let general = connected.map_err(|cause| ConnectError::Connect {
        place: shown,
        cause,
    })?;
    let reserved = pool(RESERVED).connect_lazy_with(options);
    let (general, reserved) = (Pool::Sqlite(general), Pool::Sqlite(reserved));
    Ok(Pools::new(general, reserved, pool_size))
}

/// Creates the empty file of a database that only its owner may read, whatever the umask: it holds secrets. SQLite gives
/// its other files, `-wal` and `-shm`, the same mode.
#[cfg(feature = "sqlite")]
fn create_file(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        // Another process was faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}
