//! Column types. Their forms in each engine are in `engines/`.
//!
//! The columns are the original's: `timestamp`, `interval` and `json` in PostgreSQL; in SQLite the texts that
//! SQLAlchemy writes and reads.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Type};

/// A point of time, to the microsecond. In SQLite it always has six digits after the second, so that the texts sort as
/// the times do, and SQLAlchemy reads them correctly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Timestamp(pub DateTime<Utc>);

impl<D: Database> Type<D> for Timestamp
where
    NaiveDateTime: Type<D>,
{
    fn type_info() -> D::TypeInfo {
        NaiveDateTime::type_info()
    }

    fn compatible(info: &D::TypeInfo) -> bool {
        NaiveDateTime::compatible(info)
    }
}

impl<'r, D: Database> Decode<'r, D> for Timestamp
where
    NaiveDateTime: Decode<'r, D>,
{
    fn decode(value: D::ValueRef<'r>) -> Result<Self, BoxDynError> {
        NaiveDateTime::decode(value).map(|time| Self(time.and_utc()))
    }
}

/// A length of time. In SQLite it is stored as the point of time that is so long after 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub TimeDelta);

/// A JSON object. It is stored as text, so that its members keep their order.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct JsonObject(pub Map<String, Value>);

impl JsonObject {
    /// Duffy writes only objects. Any other value is kept as a member, so that one odd row does not keep all others from
    /// being read.
    pub(in crate::db) fn from_text(text: &str) -> Result<Self, BoxDynError> {
        Ok(Self(match serde_json::from_str(text)? {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            other => Map::from_iter([("value".to_owned(), other)]),
        }))
    }

    /// The detail of the error in a node's data.
    pub fn error_detail(&self) -> Option<&str> {
        self.0.get("error")?.get("detail")?.as_str()
    }

    pub(in crate::db) fn to_text(&self) -> Result<String, BoxDynError> {
        Ok(serde_json::to_string(&self.0)?)
    }
}
