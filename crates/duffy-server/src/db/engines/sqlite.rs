//! SQLite: its file, and its column types. It has no wake-ups from other processes.

use std::fs::OpenOptions;
use std::future::{self, Ready};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDateTime};
use duffy_config::DatabaseUrl;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{
    SqliteArgumentsBuffer, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous,
    SqliteTypeInfo, SqliteValueRef,
};
use sqlx::{Decode, Encode, Sqlite, Type};

use super::{ACQUIRE_TIMEOUT, ConnectError, Notifications, TwoPools, open_pools};
use crate::db::dialect::values::{Interval, JsonObject, Timestamp};

/// The engine as sqlx names it.
pub(in crate::db) type Driver = Sqlite;

/// How long a writer may wait for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a database. Creates its file only when `create` says so.
pub(in crate::db) async fn open(
    url: &DatabaseUrl,
    pool_size: u32,
    create: bool,
) -> Result<TwoPools<Driver>, ConnectError> {
    let DatabaseUrl::Sqlite { path } = url else {
        return Err(ConnectError::NotBuiltIn {
            engine: "PostgreSQL",
            feature: "postgresql",
        });
    };
    let place = path.display().to_string();
    if !path.exists() {
        if !create {
            return Err(ConnectError::NoFile(place));
        }
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if directory.is_some_and(|directory| !directory.is_dir()) {
            return Err(ConnectError::NoDirectory(place));
        }
        create_file(path).map_err(|cause| ConnectError::Connect {
            place: place.clone(),
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
    let opened = open_pools(options, pool_size, ACQUIRE_TIMEOUT).await;
    opened.map_err(|cause| ConnectError::Connect { place, cause })
}

/// Creates the empty file of a database that only its owner may read, whatever the umask: it holds secrets. SQLite gives
/// its other files, `-wal` and `-shm`, the same mode.
fn create_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

/// Other processes poll.
pub(in crate::db) fn listen(_: &SqlitePool) -> Ready<Result<Option<Notifications>, sqlx::Error>> {
    future::ready(Ok(None))
}

impl Encode<'_, Sqlite> for Timestamp {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        let text = self.0.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
        <String as Encode<Sqlite>>::encode(text, buffer)
    }
}

impl Type<Sqlite> for Interval {
    fn type_info() -> SqliteTypeInfo {
        <NaiveDateTime as Type<Sqlite>>::type_info()
    }

    fn compatible(info: &SqliteTypeInfo) -> bool {
        <NaiveDateTime as Type<Sqlite>>::compatible(info)
    }
}

impl<'r> Decode<'r, Sqlite> for Interval {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        let time = <Timestamp as Decode<Sqlite>>::decode(value)?;
        Ok(Self(time.0 - DateTime::UNIX_EPOCH))
    }
}

impl Encode<'_, Sqlite> for Interval {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        let time = DateTime::UNIX_EPOCH
            .checked_add_signed(self.0)
            .filter(|time| time.year() <= 9999)
            .ok_or("a length of time of more than 8,000 years does not fit into SQLite")?;
        <Timestamp as Encode<Sqlite>>::encode(Timestamp(time), buffer)
    }
}

impl Type<Sqlite> for JsonObject {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl<'r> Decode<'r, Sqlite> for JsonObject {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        Self::from_text(<&str as Decode<Sqlite>>::decode(value)?)
    }
}

impl Encode<'_, Sqlite> for JsonObject {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <String as Encode<Sqlite>>::encode(self.to_text()?, buffer)
    }
}
