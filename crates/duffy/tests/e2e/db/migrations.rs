//! Schemas: created, migrated, upgraded and downgraded.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use duffy_server::db::migrate::{self, MigrateError, Revision, in_silence};
use duffy_server::db::tenants::StoredKey;
use duffy_server::db::{DbError, Deadlines, nodes, sessions, tenants};

use sqlx::Connection;

use super::{Engines, open};
use crate::support::{Postgres, Proxy, Scratch};

pub(super) fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

#[tokio::test]
async fn a_schema_is_created_once() {
    let engines = Engines::empty().await;
    for db in engines.both() {
        assert!(matches!(
            migrate::current(db).await,
            Err(MigrateError::NotSetUp)
        ));
        assert!(matches!(
            migrate::upgrade(db, "head", &in_silence).await,
            Err(MigrateError::NotSetUp)
        ));
        migrate::setup_db(db).await.unwrap();
        assert_eq!(migrate::current(db).await.unwrap(), Revision::HEAD);
        migrate::check(db).await.unwrap();
        let again = migrate::setup_db(db).await;
        assert!(
            matches!(&again, Err(MigrateError::TablesPresent(tables)) if tables.len() == 8),
            "{again:?}"
        );
        migrate::insert_test_data(db, &test_keys()).await.unwrap();
        let nodes = db
            .read(async |mut tx| nodes::list_active_nodes(&mut tx).await)
            .await
            .unwrap();
        assert_eq!(nodes.len(), 74);
    }
}

fn test_keys() -> [StoredKey; 2] {
    ["a", "b"].map(StoredKey::from)
}

#[tokio::test]
async fn every_step_goes_down_and_up_again() {
    let engines = Engines::new().await;
    for db in engines.both() {
        migrate::insert_test_data(db, &test_keys()).await.unwrap();
        let known: Vec<Revision> = Revision::all().collect();
        for (to, from) in known.iter().zip(known.iter().skip(1)).rev() {
            assert_eq!(
                migrate::downgrade(db, "-1", &in_silence).await.unwrap(),
                (*from, *to)
            );
            assert_eq!(migrate::current(db).await.unwrap(), *to);
            assert!(matches!(
                migrate::check(db).await,
                Err(MigrateError::Outdated { .. })
            ));
        }
        assert_eq!(
            migrate::downgrade(db, "base", &in_silence).await.unwrap(),
            (Revision::BASE, Revision::BASE)
        );
        let reached = migrate::upgrade(db, "head", &in_silence).await.unwrap();
        assert_eq!(reached, (Revision::BASE, Revision::HEAD));
        assert_eq!(
            migrate::upgrade(db, "head", &in_silence).await.unwrap(),
            (Revision::HEAD, Revision::HEAD)
        );
        let tenant = tenants::find_tenant_by_name(db, "tenant")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(tenant.ssh_key, "Boo!");
        assert!(matches!(
            migrate::upgrade(db, "nonsense", &in_silence).await,
            Err(MigrateError::NoSuchRevision { .. })
        ));
    }
}

#[tokio::test]
async fn a_schema_of_a_newer_program_is_unchanged() {
    let engines = Engines::new().await;
    engines
        .server
        .psql("UPDATE alembic_version SET version_num = 'fffffffffff1'");
    let refused = migrate::check(&engines.postgres).await;
    assert!(matches!(&refused, Err(MigrateError::UnknownRevision(id)) if id == "fffffffffff1"));
    assert!(
        migrate::upgrade(&engines.postgres, "head", &in_silence)
            .await
            .is_err()
    );
    assert!(
        migrate::downgrade(&engines.postgres, "-1", &in_silence)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn databases_of_the_original_are_migrated() {
    let server = Postgres::start();
    server.load_file(&data("duffy-3.4.0-postgresql.sql"));
    let scratch = Scratch::new("db");
    let copy = scratch.join("duffy.sqlite");
    std::fs::copy(data("duffy-3.4.0.sqlite"), &copy).unwrap();
    for url in [server.url(), format!("sqlite:///{}", copy.display())] {
        let db = open(&url).await;
        let (from, to) = migrate::upgrade(&db, "head", &in_silence).await.unwrap();
        assert_eq!(
            (from.to_string().as_str(), to),
            ("6654d536b836", Revision::HEAD)
        );
        let other = tenants::find_tenant_by_name(&db, "other")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(other.session_lifetime.unwrap().0.num_seconds(), 3600);
        assert_eq!(
            other.created_at.0.to_rfc3339(),
            "2026-11-22T09:21:25.977767+00:00"
        );
        let (nodes, session_nodes) = db
            .read(async |mut tx| -> Result<_, DbError> {
                let nodes = nodes::list_active_nodes(&mut tx).await?;
                let session_nodes = sessions::list_nodes_of_session(&mut tx, 3).await?;
                Ok((nodes, session_nodes))
            })
            .await
            .unwrap();
        assert_eq!(nodes.len(), 27);
        assert_eq!(session_nodes.len(), 2);
        let provision = session_nodes[0].node.data.0["provision"]
            .as_object()
            .unwrap();
        assert_eq!(
            provision.keys().collect::<Vec<_>>(),
            ["hostname", "ipaddr", "lab-id"]
        );
    }
}

/// Returns the content of the columns that all revisions have, as text.
fn contents(server: &Postgres, lifetimes: bool) -> String {
    let lifetimes = if lifetimes {
        ", session_lifetime, session_lifetime_max"
    } else {
        ""
    };
    server.psql(&format!(
        "SELECT id, hostname, ipaddr, state, comment, pool, reusable, data, created_at, \
         retired_at FROM nodes ORDER BY id; \
         SELECT id, tenant_id, expires_at, data, created_at, retired_at FROM sessions ORDER BY id; \
         SELECT session_id, node_id, pool, data FROM sessions_nodes ORDER BY session_id, node_id; \
         SELECT id, name, is_admin, ssh_key, api_key, node_quota, created_at, retired_at \
         {lifetimes} FROM tenants ORDER BY id"
    ))
}

#[tokio::test]
async fn each_revision_of_the_original_goes_up_and_down_with_its_rows() {
    let fixtures = [
        ("duffy-at-base-postgresql.sql", None),
        ("duffy-at-ce2e575cb800-postgresql.sql", Some("ce2e575cb800")),
        ("duffy-at-36cf064c0481-postgresql.sql", Some("36cf064c0481")),
        ("duffy-3.4.0-postgresql.sql", Some("6654d536b836")),
    ];
    for (fixture, id) in fixtures {
        let server = Postgres::start();
        server.load_file(&data(fixture));
        let db = open(&server.url()).await;
        let found = migrate::current(&db).await.unwrap();
        assert_eq!(found.id(), id, "{fixture}");
        // The base has no lifetimes of tenants.
        let before = contents(&server, id.is_some());
        assert!(before.contains("node1.lab.test"), "{fixture}");
        while migrate::current(&db).await.unwrap() != Revision::HEAD {
            migrate::upgrade(&db, "+1", &in_silence).await.unwrap();
            assert_eq!(
                contents(&server, id.is_some()),
                before,
                "{fixture}, going up"
            );
        }
        migrate::check(&db).await.unwrap();
        while migrate::current(&db).await.unwrap() > found {
            migrate::downgrade(&db, "-1", &in_silence).await.unwrap();
            assert_eq!(
                contents(&server, id.is_some()),
                before,
                "{fixture}, going down"
            );
        }
        assert_eq!(migrate::current(&db).await.unwrap(), found);
    }
}

/// Returns the schema from PostgreSQL's catalogs: columns, their types and defaults, indexes, constraints.
fn schema(server: &Postgres) -> String {
    server.psql(
        "SELECT table_name, column_name, data_type, is_nullable, column_default \
         FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2; \
         SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1; \
         SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint \
         WHERE connamespace = 'public'::regnamespace ORDER BY 1",
    )
}

#[tokio::test]
async fn a_new_schema_equals_a_migrated_one() {
    let taken_over = Postgres::start();
    taken_over.load_file(&data("duffy-3.4.0-postgresql.sql"));
    let db = open(&taken_over.url()).await;
    let original = schema(&taken_over);
    migrate::upgrade(&db, "head", &in_silence).await.unwrap();
    let made = Postgres::start();
    migrate::setup_db(&open(&made.url()).await).await.unwrap();
    assert_eq!(schema(&made), schema(&taken_over));
    migrate::downgrade(&db, "6654d536b836", &in_silence)
        .await
        .unwrap();
    assert_eq!(
        schema(&taken_over),
        original,
        "the way back to the original"
    );
}

/// Returns the content of an SQLite file, as the texts in it.
async fn contents_of_file(path: &Path) -> Vec<String> {
    use sqlx::Row;
    let mut file = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display()))
        .await
        .unwrap();
    let mut contents = Vec::new();
    for query in [
        "SELECT json_array(id, hostname, ipaddr, state, comment, pool, reusable, data, created_at, \
         retired_at) FROM nodes ORDER BY id",
        "SELECT json_array(id, tenant_id, expires_at, data, created_at, retired_at) \
         FROM sessions ORDER BY id",
        "SELECT json_array(session_id, node_id, pool, data) FROM sessions_nodes \
         ORDER BY session_id, node_id",
        "SELECT json_array(id, name, is_admin, ssh_key, api_key, node_quota, created_at, \
         retired_at) FROM tenants ORDER BY id",
    ] {
        let rows = sqlx::query(query).fetch_all(&mut file).await.unwrap();
        contents.extend(rows.iter().map(|row| row.get::<String, _>(0)));
    }
    file.close().await.unwrap();
    contents
}

#[tokio::test]
async fn a_file_of_the_original_goes_up_and_down_with_its_rows() {
    let scratch = Scratch::new("db");
    let copy = scratch.join("duffy.sqlite");
    std::fs::copy(data("duffy-3.4.0.sqlite"), &copy).unwrap();
    let before = contents_of_file(&copy).await;
    assert_eq!(before.len(), 29 + 3 + 5 + 4);
    let db = open(&format!("sqlite:///{}", copy.display())).await;
    migrate::upgrade(&db, "head", &in_silence).await.unwrap();
    assert_eq!(contents_of_file(&copy).await, before);
    let earlier: Vec<_> = Revision::all()
        .filter(|revision| *revision < Revision::HEAD)
        .collect();
    for revision in earlier.iter().rev() {
        migrate::downgrade(&db, "-1", &in_silence).await.unwrap();
        assert_eq!(migrate::current(&db).await.unwrap(), *revision);
        assert_eq!(contents_of_file(&copy).await, before, "{revision}");
    }
    for _ in &earlier {
        migrate::upgrade(&db, "+1", &in_silence).await.unwrap();
        assert_eq!(contents_of_file(&copy).await, before);
    }
    migrate::check(&db).await.unwrap();
}

#[tokio::test]
async fn a_migration_times_out_on_locks_and_says_what_to_do() {
    let engines = Engines::new().await;
    let db = engines.postgres.clone().with_deadlines(Deadlines {
        migration_lock: Duration::from_millis(300),
        ..Deadlines::default()
    });
    let mut other = sqlx::PgConnection::connect(&engines.server.url())
        .await
        .unwrap();
    for held in [
        "SELECT count(*) FROM nodes",
        "SELECT count(*) FROM sessions",
    ] {
        let mut tx = other.begin().await.unwrap();
        sqlx::query(held).execute(&mut *tx).await.unwrap();
        let refused = tokio::time::timeout(
            Duration::from_secs(10),
            migrate::downgrade(&db, "-1", &in_silence),
        );
        let refused = refused.await.unwrap().unwrap_err();
        assert!(matches!(refused, MigrateError::Locked), "{refused:?}");
        assert!(refused.to_string().contains("Stop the other processes"));
        assert_eq!(migrate::current(&db).await.unwrap(), Revision::HEAD);
        migrate::check(&db).await.unwrap();
        tx.rollback().await.unwrap();
    }
    migrate::downgrade(&db, "-1", &in_silence).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_migration_reports_its_progress() {
    let server = Postgres::start();
    let proxy = Proxy::start(server.port());
    let url = format!("postgresql://postgres@127.0.0.1:{}/duffy", proxy.port());
    let deadline = Duration::from_millis(500);
    let db = open(&url).await.with_deadlines(Deadlines {
        transaction: deadline,
        ..Deadlines::default()
    });
    migrate::setup_db(&db).await.unwrap();
    migrate::downgrade(&db, "6654d536b836", &in_silence)
        .await
        .unwrap();
    // A slow network: a step of nine statements takes longer than the limit for progress messages.
    proxy.delay(Duration::from_millis(150));
    let (begun, said) = (std::time::Instant::now(), Mutex::new(Vec::new()));
    let report = |text: &str| said.lock().unwrap().push(text.to_owned());
    migrate::upgrade(&db, "head", &report).await.unwrap();
    assert!(begun.elapsed() > deadline * 2, "{:?}", begun.elapsed());
    proxy.delay(Duration::ZERO);
    migrate::check(&db).await.unwrap();
    let said = said.into_inner().unwrap();
    assert!(
        said.contains(&"upgrading to a81c5d2f0e37, leases on nodes".to_owned()),
        "{said:?}"
    );
}
