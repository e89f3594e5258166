//! A site with a database, a tenant and an administrator.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection, Row};

use super::{Api, Duffy, Pool, Postgres, Program, Site, eventually, free_port};

/// A site with its own database. It starts no process of Duffy.
#[derive(Debug)]
pub struct Lab {
    /// The site.
    pub site: Site,
    /// Its database server; `None` for SQLite.
    pub postgres: Option<Postgres>,
    port: u16,
    tenant_key: String,
    admin_key: String,
}

impl Lab {
    /// Creates a site on PostgreSQL.
    pub fn on_postgres(pools: &[Pool], settings: &Value) -> Self {
        let postgres = Postgres::start();
        let port = free_port();
        let site = Site::new(&postgres.url(), pools, &Self::settings(port));
        Self::set_up(site, Some(postgres), port, settings)
    }

    /// Creates a site on SQLite.
    pub fn on_sqlite(pools: &[Pool], settings: &Value) -> Self {
        let port = free_port();
        let site = Site::sqlite(pools, &Self::settings(port));
        Self::set_up(site, None, port, settings)
    }

    /// Creates a site with a database of the original and its tenants, which is not upgraded yet.
    pub fn of_original(on_postgres: bool, pools: &[Pool], settings: &Value) -> Self {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let port = free_port();
        let (mut site, postgres) = if on_postgres {
            let postgres = Postgres::start();
            postgres.load_file(&data.join("duffy-3.4.0-postgresql.sql"));
            let site = Site::new(&postgres.url(), pools, &Self::settings(port));
            (site, Some(postgres))
        } else {
            let site = Site::sqlite(pools, &Self::settings(port));
            let database = site.scratch().join("duffy.sqlite");
            std::fs::copy(data.join("duffy-3.4.0.sqlite"), database).unwrap();
            (site, None)
        };
        site.reconfigure(settings);
        Self {
            site,
            postgres,
            port,
            tenant_key: "a8b9899d-b128-59a1-aa86-754920b7f5ed".to_owned(),
            admin_key: "ae6c10d0-0b13-554c-b976-a05d8a18f0cc".to_owned(),
        }
    }

    fn set_up(mut site: Site, postgres: Option<Postgres>, port: u16, settings: &Value) -> Self {
        site.reconfigure(settings);
        let duffy = site.duffy();
        duffy.succeed(&["setup-db"]);
        let create = |arguments: &[&str]| {
            let key = site.tenant_key().public();
            let line = duffy.succeed(&[&["admin", "create-tenant"], arguments, &[key]].concat());
            line.trim().rsplit(' ').next().unwrap().to_owned()
        };
        let tenant_key = create(&["tenant"]);
        let admin_key = create(&["--is-admin", "admin"]);
        Self {
            site,
            postgres,
            port,
            tenant_key,
            admin_key,
        }
    }

    /// Short times, but long enough for a busy host.
    fn settings(port: u16) -> Value {
        json!({
            "app": {"host": "127.0.0.1", "port": port},
            "defaults": {"session-lifetime": "1h", "session-lifetime-max": "12h", "node-quota": 100},
            "tasks": {
                "periodic": {"fill-pools": {"interval": "1s"}, "expire-sessions": {"interval": "1s"}},
                "lease": "5s", "backoff-min": "500ms", "backoff-max": "1s",
            },
        })
    }

    /// Starts `serve`, `serve-legacy`, `run` or `worker`, and waits until it is ready.
    pub fn start(&self, arguments: &[&str]) -> Program {
        start(&self.site.duffy(), arguments)
    }

    /// The API with the tenant's credentials.
    pub fn tenant(&self) -> Api {
        Api::new(self.port, "tenant", &self.tenant_key)
    }

    /// The API with the administrator's credentials.
    pub fn admin(&self) -> Api {
        self.admin_at(self.port)
    }

    /// The API of another server with the administrator's credentials.
    pub fn admin_at(&self, port: u16) -> Api {
        Api::new(port, "admin", &self.admin_key)
    }

    /// The API of another server with the tenant's credentials.
    pub fn tenant_at(&self, port: u16) -> Api {
        Api::new(port, "tenant", &self.tenant_key)
    }

    /// The port of the site's server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a query whose columns are texts. Separates columns by `|` and rows by line breaks.
    pub fn sql(&self, query: &'static str) -> String {
        if let Some(postgres) = &self.postgres {
            return postgres.psql(query);
        }
        let file = self.site.scratch().join("duffy.sqlite");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let rows = runtime.block_on(async {
            let url = format!("sqlite://{}", file.display());
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            let rows = sqlx::query(query).fetch_all(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            rows
        });
        let line = |row: sqlx::sqlite::SqliteRow| {
            let cell = |index| row.get::<Option<String>, _>(index).unwrap_or_default();
            let cells: Vec<String> = (0..row.len()).map(cell).collect();
            cells.join("|")
        };
        let lines: Vec<String> = rows.into_iter().map(line).collect();
        lines.join("\n")
    }

    /// Checks that no node is in two active sessions, and that no node of a retired session is still in use.
    pub fn assert_consistent(&self) {
        let twice = self.sql(
            "SELECT CAST(node_id AS TEXT) FROM sessions_nodes \
             JOIN sessions ON sessions.id = session_id JOIN nodes ON nodes.id = node_id \
             WHERE sessions.retired_at IS NULL AND nodes.state IN ('contextualizing', 'deployed') \
             GROUP BY node_id HAVING count(*) > 1",
        );
        assert_eq!(twice, "", "nodes in two sessions");
        let orphans = self.sql(
            "SELECT CAST(id AS TEXT) FROM nodes WHERE retired_at IS NULL \
             AND state IN ('contextualizing', 'deployed') AND NOT EXISTS (SELECT 1 \
             FROM sessions_nodes JOIN sessions ON sessions.id = session_id \
             WHERE node_id = nodes.id AND sessions.retired_at IS NULL)",
        );
        assert_eq!(orphans, "", "nodes in use without a session");
    }
}

/// Starts `serve`, `serve-legacy`, `run` or `worker`, and waits until it is ready.
pub fn start(duffy: &Duffy, arguments: &[&str]) -> Program {
    let program = duffy.spawn(arguments);
    let sign = match arguments[0] {
        "worker" => "worker started",
        "serve-legacy" => "serving the old API",
        _ => "serving the web API",
    };
    wait_for_log(&program, sign);
    program
}

/// Waits until the log of a program contains a text.
pub fn wait_for_log(program: &Program, text: &str) {
    eventually(
        Duration::from_mins(1),
        &format!("{text:?} in the log"),
        || {
            let log = program.log();
            if log.contains(text) {
                Ok(())
            } else if program.is_running() {
                Err(log)
            } else {
                panic!("the program exited without logging {text:?}:\n{log}")
            }
        },
    );
}
