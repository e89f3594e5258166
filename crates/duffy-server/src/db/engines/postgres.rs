//! PostgreSQL: its connections, its wake-ups, and its column types.

use std::io;
use std::time::Duration;

use chrono::{NaiveDateTime, TimeDelta};
use duffy_config::{DatabaseUrl, PostgresUrl, SslMode};
use futures::StreamExt;
use futures::stream;
use secrecy::ExposeSecret;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::{Oid, PgInterval};
use sqlx::postgres::{
    PgArgumentBuffer, PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgSslMode, PgTypeInfo,
    PgValueRef,
};
use sqlx::{ConnectOptions, Connection, Decode, Encode, Postgres, Type};

use super::{ACQUIRE_TIMEOUT, ConnectError, Notifications, TwoPools, open_pools};
use crate::db::dialect::values::{Interval, JsonObject, Timestamp};

/// The engine as sqlx names it.
pub(in crate::db) type Driver = Postgres;

/// The channel of NOTIFY, as in `Connection::commit_statement`.
const CHANNEL: &str = "duffy_work";

/// Opens a database. There is nothing to create.
pub(in crate::db) async fn open(
    url: &DatabaseUrl,
    pool_size: u32,
    _create: bool,
) -> Result<TwoPools<Driver>, ConnectError> {
    let DatabaseUrl::Postgres(settings) = url else {
        return Err(ConnectError::NotBuiltIn {
            engine: "SQLite",
            feature: "sqlite",
        });
    };
    let options = connect_options(settings);
    let socket = options.get_socket().map(|path| path.display().to_string());
    let host = socket.unwrap_or_else(|| options.get_host().to_owned());
    let (user, port) = (options.get_username(), options.get_port());
    let database = options.get_database().unwrap_or(user);
    let place = format!("{user}@{host}:{port}/{database}");
    let patience = settings.connect_timeout.unwrap_or(ACQUIRE_TIMEOUT);
    let opened = match try_connect(&options, patience).await {
        // A server that is just starting, or busy, is worth waiting for.
        Ok(()) => open_pools(options, pool_size, patience).await,
        Err(cause) => Err(cause),
    };
    opened.map_err(|cause| ConnectError::Connect { place, cause })
}

/// Checks that a server lets Duffy in, or soon may. The pool would retry even if nothing listens, because it has to outlast
/// a restart of the server.
async fn try_connect(options: &PgConnectOptions, patience: Duration) -> Result<(), sqlx::Error> {
    let Ok(connection) = tokio::time::timeout(patience, options.connect()).await else {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    };
    match connection {
        Ok(connection) => connection.close().await,
        // `cannot_connect_now`, `too_many_connections`.
        Err(sqlx::Error::Database(cause))
            if matches!(cause.code().as_deref(), Some("57P03" | "53300")) =>
        {
            Ok(())
        }
        Err(cause) => Err(cause),
    }
}

fn connect_options(settings: &PostgresUrl) -> PgConnectOptions {
    let name = settings.application_name.as_deref().unwrap_or("duffy");
    let mut options = PgConnectOptions::new().application_name(name);
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
    // A dead or sleeping process must not hold a connection's locks for ever.
    options = options.options([
        ("statement_timeout", "30s"),
        ("lock_timeout", "20s"),
        ("idle_in_transaction_session_timeout", "30s"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "30s"),
    ]);
    // The URL's settings take precedence: `-c name=value` or `--name=value`, any number of them.
    let words = settings.options.iter();
    let words = words.flat_map(|text| text.split_whitespace());
    options.options(words.filter_map(|word| {
        let setting = word.trim_start_matches("--").trim_start_matches("-c");
        setting.split_once('=')
    }))
}

/// Listens for the wake-ups of other processes.
pub(in crate::db) async fn listen(pool: &PgPool) -> Result<Option<Notifications>, sqlx::Error> {
    // A connection of its own: the pool would miss one of its own for ever.
    let options = PgPoolOptions::new().max_connections(1);
    let own = options
        .connect_with((*pool.connect_options()).clone())
        .await?;
    let mut listener = PgListener::connect_with(&own).await?;
    // A lost connection must be reported, and reconnecting must happen only where the caller can cancel it.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(Some(
        stream::try_unfold(listener, next_notification).boxed(),
    ))
}

async fn next_notification(
    mut listener: PgListener,
) -> Result<Option<((), PgListener)>, sqlx::Error> {
    match listener.try_recv().await? {
        Some(_) => Ok(Some(((), listener))),
        None => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <NaiveDateTime as Encode<Postgres>>::encode(self.0.naive_utc(), buffer)
    }
}

impl Type<Postgres> for Interval {
    fn type_info() -> PgTypeInfo {
        <PgInterval as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Interval {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let interval = <PgInterval as Decode<Postgres>>::decode(value)?;
        // A month of an interval that a person wrote counts 30 days, as drivers do it.
        let days = i64::from(interval.months) * 30 + i64::from(interval.days);
        TimeDelta::try_days(days)
            .and_then(|delta| delta.checked_add(&TimeDelta::microseconds(interval.microseconds)))
            .map(Self)
            .ok_or_else(|| "interval out of range".into())
    }
}

impl Encode<'_, Postgres> for Interval {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let days = i32::try_from(self.0.num_days())?;
        let rest = self.0 - TimeDelta::days(i64::from(days));
        let microseconds = rest.num_microseconds().ok_or("interval out of range")?;
        let interval = PgInterval {
            months: 0,
            days,
            microseconds,
        };
        <PgInterval as Encode<Postgres>>::encode(interval, buffer)
    }
}

/// `json`, not `jsonb`, which would sort the members.
const JSON: Oid = Oid(114);

impl Type<Postgres> for JsonObject {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(JSON)
    }
}

impl<'r> Decode<'r, Postgres> for JsonObject {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Self::from_text(value.as_str()?)
    }
}

impl Encode<'_, Postgres> for JsonObject {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend(self.to_text()?.as_bytes());
        Ok(IsNull::No)
    }
}
