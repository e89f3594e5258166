//! `database`: where the data is.

use crate::database_url::{self, DatabaseUrl};
use crate::decode::Cursor;
use crate::error::{ConfigError, Problem};

/// The `database` section.
#[derive(Debug, Clone)]
pub struct Database {
    /// Maximum number of connections of one process. An addition to the original.
    pub pool_size: u32,
    url: Result<DatabaseUrl, Problem>,
}

impl Database {
    /// Returns the database to use.
    ///
    /// # Errors
    /// The original's configurations can name databases that only the original can use, for example MySQL or one in
    /// memory. The message says in one line what to do. Programs that do not use the database accept such a configuration.
    pub fn url(&self) -> Result<&DatabaseUrl, ConfigError> {
        Ok(self.url.as_ref().map_err(Clone::clone)?)
    }

    pub(crate) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        cursor.section(|fields| {
            let pool_size = fields.read_or("pool-size", 10, |at| at.integer(1..=1000));
            let url = fields.read_required("sqlalchemy", decode_url)?;
            Some(Self { pool_size, url })
        })
    }
}

/// Decodes settings of SQLAlchemy, which accepts any keys.
fn decode_url(cursor: &Cursor<'_>) -> Option<Result<DatabaseUrl, Problem>> {
    let fields = cursor.fields()?;
    for (key, entry) in fields.map {
        if key != "sync_url" && key != "async_url" {
            let at = cursor.below(key, entry);
            at.warn("this is a setting of SQLAlchemy and is not used; see database.pool-size");
        }
    }
    let at = fields.require("sync_url")?;
    let other = fields.get("async_url").and_then(|at| {
        let parsed = database_url::parse(at.text()?);
        Some((at, parsed))
    });
    let text = at.text()?;
    let url = match database_url::parse(text) {
        Ok((url, warnings)) => {
            for warning in warnings {
                at.warn(warning);
            }
            url
        }
        // The original refuses texts that are not URLs, and accepts any URL.
        Err(message) if url::Url::parse(text).is_err() => return at.refuse(message),
        Err(message) => {
            at.warn(&message);
            return Some(Err(at.problem(message)));
        }
    };
    match other {
        Some((at, Ok((other, _)))) if !url.is_same_place(&other) => {
            at.warn("this is another database than sync_url; sync_url is used");
        }
        Some((at, Err(message))) => at.warn(format!("{message}; sync_url is used")),
        _ => {}
    }
    Some(Ok(url))
}
