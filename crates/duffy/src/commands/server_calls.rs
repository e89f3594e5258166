//! What the commands ask of the server's crate, as calls that block.

use std::fmt::Display;

#[cfg(feature = "server")]
use duffy_server::actor::{acting, operator};
use duffy_server::context::open_database;
#[cfg(feature = "server")]
use duffy_server::context::{Context, Ctx};
use duffy_server::db::Db;
use tokio::runtime::Runtime;

use crate::config::Loaded;
use crate::failure::Failure;

/// The configured database, opened for each call.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    loaded: Loaded,
}

/// Prepares to call; opens nothing yet.
pub fn connect(loaded: &Loaded) -> Result<Server, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("cannot start a thread: {error}")))?;
    Ok(Server {
        runtime,
        loaded: loaded.clone(),
    })
}

impl Server {
    /// With the database, whatever its schema. `create` makes an SQLite file that is not there.
    pub(super) fn with_database<T, E, F, Fut>(&self, create: bool, call: F) -> Result<T, Failure>
    where
        E: Display,
        F: FnOnce(Db) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.runtime.block_on(async {
            let db = open_database(&self.loaded.config, create)
                .await
                .map_err(Failure::new)?;
            let result = call(db.clone()).await;
            db.close().await;
            result.map_err(Failure::new)
        })
    }

    /// With all that the rules need, on the newest schema. What is done stands in the history as
    /// done by whoever runs the command.
    #[cfg(feature = "server")]
    pub(super) fn with_context<T, F, Fut>(&self, call: F) -> Result<T, Failure>
    where
        F: FnOnce(Ctx) -> Fut,
        Fut: Future<Output = T>,
    {
        self.runtime.block_on(async {
            let ctx = Context::open(self.loaded.config.clone())
                .await
                .map_err(Failure::new)?;
            let result = acting(operator(&user_name()), call(ctx.clone())).await;
            ctx.db.close().await;
            Ok(result)
        })
    }
}

/// Who runs this: by the name that they logged in with, else by number.
#[cfg(feature = "server")]
fn user_name() -> String {
    let names = ["SUDO_USER", "LOGNAME", "USER"].into_iter();
    let mut names = names.filter_map(|name| std::env::var(name).ok());
    let name = names.find(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()))
}

/// A database of a test's own: an SQLite file with the newest tables, in a directory that goes with it.
#[cfg(feature = "sqlite")]
#[cfg(test)]
pub(super) fn scratch_server() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("duffy.yaml");
    let database = directory.path().join("duffy.sqlite");
    let text = format!(
        "database: {{sqlalchemy: {{sync_url: 'sqlite:///{}'}}}}\n\
         defaults: {{session-lifetime: 6h, session-lifetime-max: 12h, node-quota: 100000}}\n",
        database.display()
    );
    std::fs::write(&config, text).unwrap();
    let server = connect(&Loaded::load(&[config], None).unwrap()).unwrap();
    let made = server.with_database(true, async |db| {
        duffy_server::db::migrate::setup_db(&db).await
    });
    made.unwrap();
    (directory, server)
}
