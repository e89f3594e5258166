//! How long the hot functions take: `cargo bench -p duffy-server`.
#![expect(clippy::unwrap_used, reason = "benchmarks may panic")]

mod paths;

use std::sync::Arc;

use divan::Bencher;
use duffy_config::DatabaseUrl;
use duffy_server::context::{Context, Ctx};
use duffy_server::credentials::Credentials;
use duffy_server::db::dialect::{Engine, expand};
use duffy_server::db::sessions::{SessionNodeRow, SessionRow};
use duffy_server::db::tenants::TenantRow;
use duffy_server::db::{Db, JsonObject, Timestamp};
use duffy_server::lifecycle::views;
use serde_json::{Map, json};

const EXAMPLE: &str = include_str!("../../../../etc/duffy-example-config.yaml");

fn main() {
    divan::main();
}

#[divan::bench]
fn load_example_configuration() {
    paths::load_configuration(divan::black_box(EXAMPLE));
}

#[divan::bench(args = [20, 200])]
fn load_configuration(bencher: Bencher, pools: usize) {
    let text = paths::configuration(pools);
    bencher.bench(|| paths::load_configuration(&text));
}

#[divan::bench(args = [1, 100])]
fn read_session(bencher: Bencher, pools: usize) {
    let body = paths::session_body(pools);
    bencher.bench(|| paths::read_session(&body));
}

#[divan::bench(args = [1, 1000])]
fn list_nodes(bencher: Bencher, quantity: i64) {
    bencher
        .with_inputs(|| paths::node_rows(quantity))
        .bench_values(paths::list_nodes);
}

#[divan::bench(args = [1, 50])]
fn session(bencher: Bencher, nodes: i64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("duffy.sqlite");
    let ctx = runtime.block_on(context(DatabaseUrl::Sqlite { path }));
    let owner = tenant();
    bencher
        .with_inputs(|| {
            let uses = paths::node_rows(nodes).into_iter();
            let uses = uses.map(|node| SessionNodeRow {
                session_id: 1,
                session_data: node.data.clone(),
                node,
            });
            uses.collect::<Vec<_>>()
        })
        .bench_values(|uses| {
            let session = views::session(&ctx, session_row(), &owner, uses);
            serde_json::to_vec(&session).unwrap()
        });
}

async fn context(url: DatabaseUrl) -> Ctx {
    let config = Arc::new(paths::load_configuration(&paths::configuration(1)));
    let db = Db::open(&url, 1, true).await.unwrap();
    Context::with_database(config, db, Credentials::new()).unwrap()
}

fn tenant() -> TenantRow {
    TenantRow {
        id: 1,
        name: "tenant".to_owned(),
        is_admin: false,
        ssh_key: "ssh-ed25519 AAAA".to_owned(),
        api_key: "hash".to_owned(),
        api_key_digest: None,
        node_quota: None,
        session_lifetime: None,
        session_lifetime_max: None,
        created_at: Timestamp(chrono::DateTime::UNIX_EPOCH),
        retired_at: None,
    }
}

fn session_row() -> SessionRow {
    let time = Timestamp(chrono::DateTime::UNIX_EPOCH);
    SessionRow {
        id: 1,
        tenant_id: 1,
        expires_at: Some(time),
        data: JsonObject(Map::new()),
        created_at: time,
        retired_at: None,
    }
}

/// Each statement of the program is expanded each time it runs.
#[divan::bench]
fn expand_statement() -> String {
    let text =
        "{as_state $3}, {now}, {next_fence}, {in_rows} {ids $1} {end_in_rows}, {node_columns}";
    expand(divan::black_box(text), Engine::Postgres).unwrap()
}

#[divan::bench]
fn render_template(bencher: Bencher) {
    let values = json!({"name": "virtual-centos9stream-x86_64-small"});
    let values = values.as_object().unwrap();
    let text = "{% set parts = name.split(\"-\") %}duffy-{{ parts[1:] | join(\"-\") }}";
    bencher.bench(|| duffy_config::render_template(text, values).unwrap());
}
