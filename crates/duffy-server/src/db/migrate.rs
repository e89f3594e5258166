//! Creates the schema, and moves it from revision to revision.

mod progress;
mod revisions;
mod test_data;

use std::fmt;
use std::time::Duration;

use super::dialect::{self, Engine};
use super::{Db, DbError, DbResult, Tx};
use progress::watched;
use revisions::{BASE, STEPS, Script, Step, TABLES, split};

pub use progress::{Report, in_silence};
pub use test_data::{TEST_TENANTS, insert_test_data, test_api_key};

/// A revision that this program knows. 0 is the base, before the first numbered one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(usize);

impl Revision {
    /// The newest.
    pub const HEAD: Revision = Revision(STEPS.len());
    /// Before the first numbered one.
    pub const BASE: Revision = Revision(0);

    /// Its id in `alembic_version`; `None` for the base.
    pub fn id(self) -> Option<&'static str> {
        self.step().map(|step| step.id)
    }

    /// What it is for.
    pub fn title(self) -> &'static str {
        self.step().map_or("the first schema", |step| step.title)
    }

    fn step(self) -> Option<&'static Step> {
        STEPS.get(self.0.checked_sub(1)?)
    }

    /// All revisions, oldest first.
    pub fn all() -> impl Iterator<Item = Revision> {
        (0..=STEPS.len()).map(Revision)
    }
}

/// `a81c5d2f0e37 (head)`, `6654d536b836`, `<base>`.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id() {
            None => f.write_str("<base>"),
            Some(id) if *self == Revision::HEAD => write!(f, "{id} (head)"),
            Some(id) => f.write_str(id),
        }
    }
}

/// Why a schema could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database has tables of Duffy.
    #[error("the database has tables of Duffy already: {}; nothing was changed. To bring them up to date, run `duffy migration upgrade`", .0.join(", "))]
    TablesPresent(Vec<String>),
    /// The database has no tables of Duffy.
    #[error("the database has no tables of Duffy; run `duffy setup-db`")]
    NotSetUp,
    /// A later version of Duffy migrated the database.
    #[error(
        "the database is at revision {0}, which this version of duffy does not know; use a newer one"
    )]
    UnknownRevision(String),
    /// The database is not at the revision that the program needs.
    #[error(
        "the database is at revision {0}, this version of duffy needs {head}; run `duffy migration upgrade`",
        head = Revision::HEAD
    )]
    Outdated(Revision),
    /// The text names no revision.
    #[error("there is no revision {wanted:?}; {known}")]
    NoSuchRevision {
        /// The text.
        wanted: String,
        /// The known revisions.
        known: String,
    },
    /// Other programs hold the tables.
    #[error(
        "other programs hold the database's tables; nothing was changed. Stop the other processes of Duffy (serve, worker, run), and whatever else works on this database, then run this again"
    )]
    Locked,
    /// Anything else.
    #[error(transparent)]
    Db(DbError),
}

impl From<DbError> for MigrateError {
    fn from(error: DbError) -> Self {
        match &error {
            // Migrations are not retried.
            DbError::Conflict(_) => MigrateError::Locked,
            DbError::Unavailable(sqlx::Error::Database(cause))
                if dialect::is_lock_timeout(cause.as_ref()) =>
            {
                MigrateError::Locked
            }
            _ => MigrateError::Db(error),
        }
    }
}

/// Creates the schema in an empty database, at the newest revision.
pub async fn setup_db(db: &Db) -> Result<(), MigrateError> {
    let patience = db.deadlines.migration_lock;
    db.long_transaction(async |mut tx| {
        lock_schema(&mut tx, patience).await?;
        let present = list_tables(&mut tx).await?;
        if !present.is_empty() {
            return Err(MigrateError::TablesPresent(present));
        }
        execute(&mut tx, BASE).await?;
        for step in &STEPS {
            execute(&mut tx, step.up).await?;
        }
        write_version(&mut tx, Revision::HEAD).await?;
        Ok(())
    })
    .await
}

/// Reads the revision of the database.
pub async fn current(db: &Db) -> Result<Revision, MigrateError> {
    db.read(async |mut tx| read_version(&mut tx).await).await
}

/// Checks that the database is at the newest revision.
pub async fn check(db: &Db) -> Result<(), MigrateError> {
    match current(db).await? {
        Revision::HEAD => Ok(()),
        at => Err(MigrateError::Outdated(at)),
    }
}

/// Upgrades the schema to a revision: `head`, an id or its beginning, or `+1` and so on. Returns the revisions before
/// and after. `report` gets messages about slow steps.
pub async fn upgrade(
    db: &Db,
    to: &str,
    report: Report<'_>,
) -> Result<(Revision, Revision), MigrateError> {
    migrate(db, to, true, report).await
}

/// Downgrades the schema to a revision: `base`, an id or its beginning, or `-1` and so on. Returns the revisions before
/// and after. `report` gets messages about slow steps.
pub async fn downgrade(
    db: &Db,
    to: &str,
    report: Report<'_>,
) -> Result<(Revision, Revision), MigrateError> {
    migrate(db, to, false, report).await
}

/// All steps are one transaction, so that the schema is never left between two revisions.
async fn migrate(
    db: &Db,
    to: &str,
    up: bool,
    report: Report<'_>,
) -> Result<(Revision, Revision), MigrateError> {
    let patience = db.deadlines.migration_lock;
    db.long_transaction(async |mut tx| {
        lock_schema(&mut tx, patience).await?;
        let from = read_version(&mut tx).await?;
        let target = resolve(to, from)?;
        let (low, high) = if up { (from, target) } else { (target, from) };
        let steps = STEPS.get(low.0..high.0).unwrap_or_default();
        if !steps.is_empty() {
            lock_tables(&mut tx).await?;
        }
        if up {
            for step in steps {
                let what = format!("upgrading to {}, {}", step.id, step.title);
                watched(execute(&mut tx, step.up), &what, report).await?;
            }
        } else {
            for step in steps.iter().rev() {
                let what = format!("downgrading from {}, {}", step.id, step.title);
                watched(execute(&mut tx, step.down), &what, report).await?;
            }
        }
        let reached = if steps.is_empty() { from } else { target };
        write_version(&mut tx, reached).await?;
        Ok((from, reached))
    })
    .await
}

/// Returns the revision that a text names. Steps count from another revision.
fn resolve(text: &str, from: Revision) -> Result<Revision, MigrateError> {
    let ids = STEPS.map(|step| step.id).join(", ");
    let unknown = || MigrateError::NoSuchRevision {
        wanted: text.to_owned(),
        known: format!("known are base, {ids}, head, and steps such as +1 and -1"),
    };
    if text.starts_with(['+', '-']) {
        let count = text.parse().map_err(|_| unknown())?;
        let reached = from.0.checked_add_signed(count);
        let reached = reached.filter(|n| *n <= STEPS.len());
        return reached.map(Revision).ok_or_else(unknown);
    }
    match text {
        "head" | "heads" => Ok(Revision::HEAD),
        "base" => Ok(Revision::BASE),
        _ => {
            let mut found = Revision::all()
                .filter(|revision| revision.id().is_some_and(|id| id.starts_with(text)));
            match (found.next(), found.next()) {
                (Some(revision), None) if !text.is_empty() => Ok(revision),
                _ => Err(unknown()),
            }
        }
    }
}

async fn read_version(tx: &mut Tx) -> Result<Revision, MigrateError> {
    let present = list_tables(tx).await?;
    if present.is_empty() {
        return Err(MigrateError::NotSetUp);
    }
    if !present.iter().any(|table| table == "alembic_version") {
        return Ok(Revision::BASE);
    }
    let sql = "SELECT version_num FROM alembic_version";
    let version = tx.scalar::<String>(sql, &[]).await?;
    match version {
        None if present.len() == 1 => Err(MigrateError::NotSetUp),
        None => Ok(Revision::BASE),
        Some(id) => Revision::all()
            .find(|revision| revision.id() == Some(&id))
            .ok_or(MigrateError::UnknownRevision(id)),
    }
}

async fn write_version(tx: &mut Tx, revision: Revision) -> Result<(), MigrateError> {
    let sql = "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL, \
        CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))";
    tx.execute(sql, &[]).await?;
    tx.execute("DELETE FROM alembic_version", &[]).await?;
    if let Some(id) = revision.id() {
        let sql = "INSERT INTO alembic_version (version_num) VALUES ($1)";
        tx.execute(sql, &[&id]).await?;
    }
    Ok(())
}

/// Lists Duffy's tables that exist.
async fn list_tables(tx: &mut Tx) -> DbResult<Vec<String>> {
    let names = tx.column::<String>("{tables}", &[]).await?;
    Ok(names
        .into_iter()
        .filter(|name| TABLES.contains(&name.as_str()))
        .collect())
}

/// Keeps another program from changing the schema at the same time. Later statements have no time limit, but wait for
/// locks no longer than this: a statement that waits for a lock blocks all later ones.
async fn lock_schema(tx: &mut Tx, patience: Duration) -> DbResult<()> {
    tx.execute("{no_timeouts}", &[]).await?;
    let patience = format!("{}ms", patience.as_millis().max(1));
    tx.execute("{lock_timeout}", &[&patience.as_str()]).await?;
    tx.execute("{schema_lock}", &[]).await
}

/// Takes all locks that the steps need before the first step, so that no step has to wait. In SQLite the transaction
/// locks the whole database.
async fn lock_tables(tx: &mut Tx) -> DbResult<()> {
    if tx.engine() == Engine::Postgres {
        // These names need no quotes.
        let tables = list_tables(tx).await?.join(", ");
        let lock = format!("LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE");
        tx.execute(&lock, &[]).await?;
    }
    Ok(())
}

async fn execute(tx: &mut Tx, script: Script) -> DbResult<()> {
    let file = match tx.engine() {
        Engine::Postgres => script.0,
        Engine::Sqlite => script.1,
    };
    for statement in split(file) {
        tx.execute(&statement, &[]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_name_revisions() {
        let base = Revision::BASE;
        assert_eq!(resolve("head", base).unwrap(), Revision::HEAD);
        assert_eq!(resolve("base", Revision::HEAD).unwrap(), base);
        assert_eq!(resolve("+1", base).unwrap(), Revision(1));
        assert_eq!(
            resolve("-1", Revision::HEAD).unwrap(),
            Revision(STEPS.len() - 1)
        );
        assert_eq!(resolve("6654d536b836", base).unwrap(), Revision(3));
        assert_eq!(resolve("6654", base).unwrap(), Revision(3));
        for bad in ["", "-1", "+99", "zzz", "+", "+-1"] {
            assert!(resolve(bad, base).is_err(), "{bad:?}");
        }
    }
}
