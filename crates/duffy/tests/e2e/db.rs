//! The database's functions, each on both engines.

mod functions;
mod idempotency;
mod migrations;
mod original;

use std::time::Duration;

use duffy_config::DatabaseUrl;
use duffy_server::db::{Db, migrate, statements};
use sqlx::{Connection, Executor};

use crate::support::{Postgres, Proxy, Scratch, eventually};

/// A database of each engine with the newest schema, and what keeps it.
struct Engines {
    postgres: Db,
    sqlite: Db,
    server: Postgres,
    scratch: Scratch,
}

impl Engines {
    /// Empty databases.
    async fn empty() -> Self {
        let server = Postgres::start();
        let scratch = Scratch::new("db");
        let sqlite = format!("sqlite:///{}", scratch.join("duffy.sqlite").display());
        Self {
            postgres: open(&server.url()).await,
            sqlite: open(&sqlite).await,
            server,
            scratch,
        }
    }

    /// With the newest schema.
    async fn new() -> Self {
        let this = Self::empty().await;
        for db in this.both() {
            migrate::setup_db(db).await.unwrap();
        }
        this
    }

    fn both(&self) -> [&Db; 2] {
        [&self.postgres, &self.sqlite]
    }

    fn sqlite_url(&self) -> String {
        format!("sqlite://{}", self.scratch.join("duffy.sqlite").display())
    }
}

async fn open(url: &str) -> Db {
    Db::open(&DatabaseUrl::parse(url).unwrap(), 5, true)
        .await
        .unwrap()
}

#[tokio::test]
async fn each_engine_understands_each_statement() {
    let engines = Engines::new().await;
    let mut postgres = sqlx::PgConnection::connect(&engines.server.url())
        .await
        .unwrap();
    let mut sqlite = sqlx::SqliteConnection::connect(&engines.sqlite_url())
        .await
        .unwrap();
    let mut count = 0;
    for (name, sql) in statements() {
        let described = (&mut postgres)
            .prepare(sqlx::SqlSafeStr::into_sql_str(sql.postgres))
            .await;
        assert!(
            described.is_ok(),
            "PostgreSQL, {name}: {:?}",
            described.err()
        );
        let described = (&mut sqlite)
            .prepare(sqlx::SqlSafeStr::into_sql_str(sql.sqlite))
            .await;
        assert!(described.is_ok(), "SQLite, {name}: {:?}", described.err());
        count += 1;
    }
    assert!(count > 50, "only {count} statements are listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_given_up_at_its_begin_leaves_none_open() {
    let server = Postgres::start();
    let proxy = Proxy::start(server.port());
    let url = format!("postgresql://postgres@127.0.0.1:{}/duffy", proxy.port());
    let db = open(&url).await;
    migrate::setup_db(&db).await.unwrap();
    db.ping().await.unwrap();
    proxy.stall();
    let soon = Duration::from_millis(200);
    assert!(tokio::time::timeout(soon, db.ping()).await.is_err());
    proxy.resume();
    let states = "SELECT state, query FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                  AND datname = 'duffy' ORDER BY pid";
    eventually(Duration::from_secs(10), "a BEGIN rolled back", || {
        let seen = server.psql(states);
        let undone = seen.contains("idle|ROLLBACK") && !seen.contains("in transaction");
        undone.then_some(()).ok_or(seen)
    });
}
