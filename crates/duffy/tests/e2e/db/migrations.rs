//! Schemas: made, taken over, up and down.

use std::path::Path;

use duffy_server::db::migrate::{self, MigrateError, Revision};
use duffy_server::db::{DbError, nodes, sessions, tenants};

use super::{Engines, open};
use crate::support::{Postgres, Scratch};

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

#[tokio::test]
async fn a_schema_is_made_once() {
    let engines = Engines::empty().await;
    for db in engines.both() {
        assert!(matches!(
            migrate::current(db).await,
            Err(MigrateError::NotSetUp)
        ));
        assert!(matches!(
            migrate::upgrade(db, "head").await,
            Err(MigrateError::NotSetUp)
        ));
        migrate::setup_db(db).await.unwrap();
        assert_eq!(migrate::current(db).await.unwrap(), Revision::HEAD);
        migrate::check(db).await.unwrap();
        let again = migrate::setup_db(db).await;
        assert!(
            matches!(&again, Err(MigrateError::TablesPresent(tables)) if tables.len() == 5),
            "{again:?}"
        );
        let hashes = ["a".to_owned(), "b".to_owned()];
        migrate::insert_test_data(db, hashes).await.unwrap();
        let nodes = db
            .read(async |mut tx| {
                let nodes = nodes::list_active_nodes(&mut tx).await?;
                Ok::<_, DbError>((tx, nodes))
            })
            .await
            .unwrap();
        assert_eq!(nodes.len(), 74);
    }
}

#[tokio::test]
async fn every_step_goes_down_and_up_again() {
    let engines = Engines::new().await;
    for db in engines.both() {
        migrate::insert_test_data(db, ["a".to_owned(), "b".to_owned()])
            .await
            .unwrap();
        let known: Vec<Revision> = Revision::all().collect();
        for (to, from) in known.iter().zip(known.iter().skip(1)).rev() {
            assert_eq!(migrate::downgrade(db, "-1").await.unwrap(), (*from, *to));
            assert_eq!(migrate::current(db).await.unwrap(), *to);
            assert!(matches!(
                migrate::check(db).await,
                Err(MigrateError::Outdated { .. })
            ));
        }
        assert_eq!(
            migrate::downgrade(db, "base").await.unwrap(),
            (Revision::BASE, Revision::BASE)
        );
        let reached = migrate::upgrade(db, "head").await.unwrap();
        assert_eq!(reached, (Revision::BASE, Revision::HEAD));
        assert_eq!(
            migrate::upgrade(db, "head").await.unwrap(),
            (Revision::HEAD, Revision::HEAD)
        );
        let tenant = tenants::find_tenant_by_name(db, "tenant")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(tenant.ssh_key, "Boo!");
        assert!(matches!(
            migrate::upgrade(db, "nonsense").await,
            Err(MigrateError::NoSuchRevision { .. })
        ));
    }
}

#[tokio::test]
async fn a_schema_of_a_newer_program_is_left_alone() {
    let engines = Engines::new().await;
    engines
        .server
        .psql("UPDATE alembic_version SET version_num = 'fffffffffff1'");
    let refused = migrate::check(&engines.postgres).await;
    assert!(matches!(&refused, Err(MigrateError::UnknownRevision(id)) if id == "fffffffffff1"));
    assert!(migrate::upgrade(&engines.postgres, "head").await.is_err());
    assert!(migrate::downgrade(&engines.postgres, "-1").await.is_err());
}

#[tokio::test]
async fn databases_of_the_original_are_taken_over() {
    let server = Postgres::start();
    server.load_file(&data("duffy-3.4.0-postgresql.sql"));
    let scratch = Scratch::new("db");
    let copy = scratch.join("duffy.sqlite");
    std::fs::copy(data("duffy-3.4.0.sqlite"), &copy).unwrap();
    for url in [server.url(), format!("sqlite:///{}", copy.display())] {
        let db = open(&url).await;
        let (from, to) = migrate::upgrade(&db, "head").await.unwrap();
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
            .read(async |mut tx| {
                let nodes = nodes::list_active_nodes(&mut tx).await?;
                let session_nodes = sessions::list_nodes_of_session(&mut tx, 3).await?;
                Ok::<_, DbError>((tx, (nodes, session_nodes)))
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
