//! Column types: how a value of ours stands in a column of each engine.
//!
//! The original's columns stay as they are: `timestamp`, `interval` and `json` in
//! PostgreSQL; in SQLite the texts that SQLAlchemy writes and reads.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use sqlx::error::BoxDynError;

/// A point of time, to the microsecond. In SQLite always with six digits behind the second:
/// so the texts sort as the times do, and SQLAlchemy reads them rightly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub DateTime<Utc>);

/// A length of time. In SQLite the point of time so long after 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub TimeDelta);

/// A JSON object. Kept as the text it was written as, so that its members keep their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JsonObject(pub Map<String, Value>);

impl JsonObject {
    /// What is no object was not written by Duffy; it is kept as a member, so that one odd
    /// row does not keep all others from being read.
    fn from_text(text: &str) -> Result<Self, BoxDynError> {
        Ok(Self(match serde_json::from_str(text)? {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            other => Map::from_iter([("value".to_owned(), other)]),
        }))
    }

    fn to_text(&self) -> Result<String, BoxDynError> {
        Ok(serde_json::to_string(&self.0)?)
    }
}

#[cfg(feature = "postgresql")]
mod postgres {
    use super::{Interval, JsonObject, NaiveDateTime, TimeDelta, Timestamp};
    use sqlx::encode::IsNull;
    use sqlx::error::BoxDynError;
    use sqlx::postgres::types::{Oid, PgInterval};
    use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
    use sqlx::{Decode, Encode, Postgres, Type};

    impl Type<Postgres> for Timestamp {
        fn type_info() -> PgTypeInfo {
            <NaiveDateTime as Type<Postgres>>::type_info()
        }
    }

    impl<'r> Decode<'r, Postgres> for Timestamp {
        fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
            <NaiveDateTime as Decode<Postgres>>::decode(value).map(|time| Self(time.and_utc()))
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
                .and_then(|delta| {
                    delta.checked_add(&TimeDelta::microseconds(interval.microseconds))
                })
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
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::{DateTime, Interval, JsonObject, NaiveDateTime, Timestamp, Utc};
    use sqlx::encode::IsNull;
    use sqlx::error::BoxDynError;
    use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
    use sqlx::{Decode, Encode, Sqlite, Type};

    fn to_text(time: DateTime<Utc>) -> String {
        time.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
    }

    impl Type<Sqlite> for Timestamp {
        fn type_info() -> SqliteTypeInfo {
            <NaiveDateTime as Type<Sqlite>>::type_info()
        }

        fn compatible(info: &SqliteTypeInfo) -> bool {
            <NaiveDateTime as Type<Sqlite>>::compatible(info)
        }
    }

    impl<'r> Decode<'r, Sqlite> for Timestamp {
        fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
            <NaiveDateTime as Decode<Sqlite>>::decode(value).map(|time| Self(time.and_utc()))
        }
    }

    impl Encode<'_, Sqlite> for Timestamp {
        fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
            <String as Encode<Sqlite>>::encode(to_text(self.0), buffer)
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
            let time = <NaiveDateTime as Decode<Sqlite>>::decode(value)?;
            Ok(Self(time.and_utc() - DateTime::UNIX_EPOCH))
        }
    }

    impl Encode<'_, Sqlite> for Interval {
        fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
            let time = DateTime::UNIX_EPOCH
                .checked_add_signed(self.0)
                .filter(|time| chrono::Datelike::year(time) <= 9999)
                .ok_or("a length of time of more than 8,000 years does not fit into SQLite")?;
            <String as Encode<Sqlite>>::encode(to_text(time), buffer)
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
}
