//! Reads and writes a migrated database with the models of the original.

use std::path::Path;
use std::process::Command;

use duffy_api::NodeState;
use duffy_server::db::migrate::in_silence;
use duffy_server::db::{DbError, migrate, nodes, sessions, tenants};
use serde_json::{Value, json};

use super::migrations::data;
use super::open;
use crate::support::{Postgres, Scratch, python_program};

fn run_models(url: &str) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/db/original_models.py");
    let output = Command::new(python_program("python"))
        .arg(script)
        .arg(url)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_of_the_original_still_work() {
    let server = Postgres::start();
    server.load_file(&data("duffy-3.4.0-postgresql.sql"));
    let scratch = Scratch::new("db");
    let copy = scratch.join("duffy.sqlite");
    std::fs::copy(data("duffy-3.4.0.sqlite"), &copy).unwrap();
    let postgres = server
        .url()
        .replace("postgresql://", "postgresql+asyncpg://");
    let sqlite = format!("sqlite+aiosqlite:///{}", copy.display());
    for url in [postgres, sqlite] {
        let before = {
            let db = open(&url).await;
            migrate::upgrade(&db, "head", &in_silence).await.unwrap();
            let read = db
                .read(async |mut tx| nodes::list_active_nodes(&mut tx).await)
                .await;
            db.close().await;
            read.unwrap()
        };
        let python_url = url.clone();
        let read = tokio::task::spawn_blocking(move || run_models(&python_url))
            .await
            .unwrap();
        assert_eq!(
            read["nodes"].as_array().unwrap().len(),
            29,
            "retired ones too"
        );
        for node in &before {
            let theirs = read["nodes"]
                .as_array()
                .unwrap()
                .iter()
                .find(|row| row[0] == node.id);
            let ours = json!([
                node.id,
                node.state.0.as_str(),
                node.hostname,
                node.created_at
                    .0
                    .format("%Y-%m-%dT%H:%M:%S%.6f+00:00")
                    .to_string(),
                node.data.0,
            ]);
            assert_eq!(theirs, Some(&ours));
        }
        assert_eq!(read["tenants"][2], json!([3, "other", false, "1:00:00"]));
        assert_eq!(
            read["sessions"][2],
            json!([3, true, "2026-11-22T10:22:00.181677+00:00", 2])
        );

        let db = open(&url).await;
        let tenant = tenants::find_tenant_by_name(&db, "python")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            tenant.session_lifetime.unwrap().0.num_milliseconds(),
            86_400_005
        );
        assert!(bcrypt_verifies(&tenant.api_key));
        let tenant_id = tenant.id;
        let (running, lent, woken, retired) = db
            .read(async |mut tx| -> Result<_, DbError> {
                let mut running = sessions::list_active_sessions(&mut tx).await?;
                running.retain(|session| session.tenant_id == tenant_id);
                let lent = sessions::list_nodes_of_session(&mut tx, running[0].id).await?;
                let woken = nodes::find_node(&mut tx, 28).await?.unwrap();
                let retired = sessions::find_session(&mut tx, 1).await?.unwrap();
                Ok((running, lent, woken, retired))
            })
            .await
            .unwrap();
        let remaining = running[0].expires_at.unwrap().0 - running[0].created_at.0;
        assert!(
            (3_500..3_700).contains(&remaining.num_seconds()),
            "{remaining}"
        );
        assert_eq!(lent[0].node.state.0, NodeState::Deployed);
        assert_eq!(
            serde_json::to_string(&lent[0].session_data.0).unwrap(),
            r#"{"b":1,"a":2}"#
        );
        assert_eq!(
            (woken.state.0, woken.pool.as_deref()),
            (NodeState::Ready, Some("pool"))
        );
        assert!(retired.retired_at.is_some());
        db.close().await;
    }
}

/// Whether a hash of Python's bcrypt matches the key.
fn bcrypt_verifies(hash: &str) -> bool {
    bcrypt::verify("11111111-2222-4333-8444-555555555555", hash).unwrap()
}
