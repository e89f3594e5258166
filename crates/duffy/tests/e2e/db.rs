//! The functions of `db/`, each on both engines.

mod functions;
mod history;
mod idempotency;
mod migrations;
mod original;
mod plans;
mod statements;
mod transitions;
mod wake_ups;

use std::time::Duration;

use duffy_config::DatabaseUrl;
use duffy_server::db::migrate;
use duffy_server::db::{Db, DbError, Deadlines, tenants};

use crate::support::{Postgres, Proxy, Scratch, eventually};

/// A database of each engine with the newest schema, and its directory or server.
struct Engines {
    postgres: Db,
    sqlite: Db,
    server: Postgres,
    scratch: Scratch,
}

impl Engines {
    /// Creates empty databases.
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

    /// Creates databases with the newest schema.
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

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_canceled_at_its_begin_is_not_left_open() {
    let server = Postgres::start();
    let proxy = Proxy::start(server.port());
    let url = format!("postgresql://postgres@127.0.0.1:{}/duffy", proxy.port());
    let db = open(&url).await;
    migrate::setup_db(&db).await.unwrap();
    db.ping().await.unwrap();
    proxy.stall();
    let soon = Duration::from_millis(200);
    let begun = db.transaction(async |mut tx| tenants::find_tenant(&mut tx, 1).await);
    assert!(tokio::time::timeout(soon, begun).await.is_err());
    proxy.resume();
    let states = "SELECT state, query FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                  AND datname = 'duffy' ORDER BY pid";
    eventually(Duration::from_secs(10), "a BEGIN rolled back", || {
        let seen = server.psql(states);
        let undone = seen.contains("idle|ROLLBACK") && !seen.contains("in transaction");
        undone.then_some(()).ok_or(seen)
    });
}

/// With one connection per pool, through a proxy.
async fn open_through(proxy: &Proxy) -> Db {
    let url = format!("postgresql://postgres@127.0.0.1:{}/duffy", proxy.port());
    let url = DatabaseUrl::parse(&url).unwrap();
    Db::open(&url, 1, true).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_blocks_no_transaction_and_keeps_no_connection() {
    let server = Postgres::start();
    let proxy = Proxy::start(server.port());
    migrate::setup_db(&open(&server.url()).await).await.unwrap();
    let short = Duration::from_millis(300);
    let db = open_through(&proxy).await.with_deadlines(Deadlines {
        begin: short,
        transaction: short,
        read: short,
        ..Deadlines::default()
    });
    let find = async |mut tx| tenants::find_tenant(&mut tx, 1).await;
    // At the begin of a transaction, inside it, at its end, and in a read.
    for (sent, writes) in [
        ("BEGIN", true),
        ("tenants", true),
        ("COMMIT", true),
        ("tenants", false),
    ] {
        db.ping().await.unwrap();
        proxy.stall_at(sent);
        let found = async {
            if writes {
                db.transaction(find).await
            } else {
                db.read(find).await
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(5), found);
        let gone = gone.await.unwrap_or_else(|_| panic!("{sent} hangs"));
        assert!(
            matches!(gone, Err(DbError::Unavailable(_))),
            "{sent}: {gone:?}"
        );
        // The only connection of the pool gets no response, so the pool must open another one.
        let again = tokio::time::timeout(Duration::from_secs(30), async {
            while db.ping().await.is_err() {}
        });
        assert!(again.await.is_ok(), "the pool is lost after {sent}");
    }
    // No connection is in a transaction when the server responds again.
    proxy.resume();
    for _ in 0..3 {
        db.ping().await.unwrap();
    }
    let states = "SELECT state FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                  AND datname = 'duffy' ORDER BY pid";
    eventually(Duration::from_secs(10), "one idle connection", || {
        let seen = server.psql(states);
        (seen == "idle").then_some(()).ok_or(seen)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_needs_one_round_trip() {
    let server = Postgres::start();
    let proxy = Proxy::start(server.port());
    let db = open_through(&proxy).await;
    migrate::setup_db(&db).await.unwrap();
    let find = async |mut tx| tenants::find_tenant(&mut tx, 1).await;
    // The statement is prepared at its first use.
    db.read(find).await.unwrap();
    let before = proxy.round_trips();
    for _ in 0..10 {
        db.read(find).await.unwrap();
    }
    assert_eq!(proxy.round_trips() - before, 10);
    let before = proxy.round_trips();
    for _ in 0..10 {
        db.transaction(find).await.unwrap();
    }
    assert_eq!(
        proxy.round_trips() - before,
        30,
        "BEGIN, the statement, COMMIT"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_the_server_closed_kept_connections() {
    let server = Postgres::start();
    let db = open(&server.url()).await;
    migrate::setup_db(&db).await.unwrap();
    let find = async |mut tx| tenants::find_tenant(&mut tx, 1).await;
    let end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
               WHERE pid <> pg_backend_pid() AND datname = 'duffy'";
    for _ in 0..3 {
        futures::future::try_join_all((0..5).map(|_| db.read(find)))
            .await
            .unwrap();
        assert_ne!(server.psql(end), "0");
        db.read(find).await.unwrap();
        assert_ne!(server.psql(end), "0");
        db.transaction(find).await.unwrap();
    }
}

#[tokio::test]
async fn only_the_owner_can_read_new_sqlite_files() {
    use nix::sys::stat::{Mode, umask};
    use std::os::unix::fs::PermissionsExt;

    umask(Mode::from_bits_truncate(0o022));
    let scratch = Scratch::new("db");
    let modes = |name: &str| {
        let path = scratch.join(name).display().to_string();
        let mode = |file: String| {
            let metadata = std::fs::metadata(&file).unwrap_or_else(|_| panic!("no {file}"));
            metadata.permissions().mode() & 0o777
        };
        ["", "-wal", "-shm"].map(|end| mode(format!("{path}{end}")))
    };
    let url = |name: &str| format!("sqlite:///{}", scratch.join(name).display());
    let new = open(&url("new.sqlite")).await;
    migrate::setup_db(&new).await.unwrap();
    assert_eq!(modes("new.sqlite"), [0o600; 3]);
    // The permissions of an existing file do not change.
    std::fs::write(scratch.join("old.sqlite"), "").unwrap();
    let old = open(&url("old.sqlite")).await;
    migrate::setup_db(&old).await.unwrap();
    assert_eq!(modes("old.sqlite"), [0o644; 3]);
}
