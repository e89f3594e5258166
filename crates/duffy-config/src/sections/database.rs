//! `database`: where the data is.

use crate::database_url::{DatabaseUrl, Parsed};
use crate::decode::{Cursor, Report};
use crate::error::{ConfigError, Problem};

/// The `database` section.
#[derive(Debug, Clone)]
pub struct Database {
    /// Most connections of one process. An addition to the original.
    pub pool_size: u32,
    url: Result<DatabaseUrl, Problem>,
}

impl Database {
    /// The database to use.
    ///
    /// # Errors
    /// The original's configurations can name databases that only it can use (MySQL, say, or one in memory); what to do
    /// about that, in one line. Programs that do not touch the database work with such a configuration.
    pub fn url(&self) -> Result<&DatabaseUrl, ConfigError> {
        self.url
            .as_ref()
            .map_err(|problem| ConfigError::Invalid(vec![problem.clone()]))
    }

    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let fields = cursor.fields(report, &["sqlalchemy", "pool-size"])?;
        let pool_size = fields.read(report, "pool-size", |at, report| {
            at.integer(report, 1..=1000)
        });
        // SQLAlchemy takes keys of any name.
        let sqlalchemy = fields.require(report, "sqlalchemy")?;
        let fields = sqlalchemy.open_fields(report)?;
        for (key, entry) in fields.map {
            if key != "sync_url" && key != "async_url" {
                let at = Cursor::new(entry, format!("{}.{key}", sqlalchemy.path));
                at.warn(
                    report,
                    "this is a setting of SQLAlchemy and is not used; see database.pool-size",
                );
            }
        }
        let at = fields.require(report, "sync_url")?;
        let async_at = fields.get("async_url");
        let other = async_at.as_ref().and_then(|at| {
            at.text(report)
                .map(|text| (at, crate::database_url::parse(text)))
        });
        let text = at.text(report)?;
        let parsed = crate::database_url::parse(text);
        let url = match parsed {
            Ok(Parsed { url, warnings }) => {
                for warning in warnings {
                    at.warn(report, warning);
                }
                Ok(url)
            }
            // The original refuses what is no URL, and accepts any that is one.
            Err(message) if url::Url::parse(text).is_err() => {
                return at.refuse(report, message);
            }
            Err(message) => {
                at.warn(report, &message);
                Err(Problem {
                    mark: Some(at.mark.clone()),
                    path: at.path.clone(),
                    message,
                })
            }
        };
        match (&url, other) {
            (Ok(url), Some((at, Ok(other)))) if !url.is_same_place(&other.url) => {
                at.warn(
                    report,
                    "this names another database than sync_url, which is the one that is used",
                );
            }
            (Ok(_), Some((at, Err(message)))) => {
                at.warn(report, format!("{message}; sync_url is used"));
            }
            _ => {}
        }
        Some(Self {
            pool_size: pool_size.map_or(10, |size| size as u32),
            url,
        })
    }
}
