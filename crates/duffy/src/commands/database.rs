//! Opens the configured database for a command, and closes it again.

use std::sync::Arc;

use duffy_config::Config;
use duffy_server::actor::{acting, operator};
use duffy_server::context::{Context, Ctx, open_database};
use duffy_server::db::Db;

use crate::failure::Failure;

/// Works on the database, whatever its schema. `create` creates an SQLite file that does not exist.
pub fn with_database<T>(
    config: &Config,
    create: bool,
    work: impl AsyncFnOnce(&Db) -> Result<T, Failure>,
) -> Result<T, Failure> {
    block_on(async {
        let db = open_database(config, create).await?;
        let result = work(&db).await;
        db.close().await;
        result
    })
}

/// Works on a database with the newest schema. The history names the user of the command as the actor.
pub fn with_context<T>(
    config: &Arc<Config>,
    work: impl AsyncFnOnce(&Ctx) -> Result<T, Failure>,
) -> Result<T, Failure> {
    block_on(async {
        let ctx = Context::open(Arc::clone(config)).await?;
        let result = acting(operator(&user_name()), work(&ctx)).await;
        ctx.db.close().await;
        result
    })
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format_args!("cannot start a thread: {error}")))?
        .block_on(work)
}

/// Returns the name with which the user logged in, or else their number.
fn user_name() -> String {
    let names = ["SUDO_USER", "LOGNAME", "USER"].into_iter();
    let mut names = names.filter_map(|name| std::env::var(name).ok());
    let name = names.find(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()))
}

/// Creates a database for a test: an SQLite file with the newest tables, in a directory that is removed with it.
#[cfg(feature = "sqlite")]
#[cfg(test)]
pub fn scratch_database() -> (tempfile::TempDir, Arc<Config>) {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "database: {{sqlalchemy: {{sync_url: 'sqlite:///{}'}}}}\n\
         defaults: {{session-lifetime: 6h, session-lifetime-max: 12h, node-quota: 100000}}\n",
        directory.path().join("duffy.sqlite").display()
    );
    let config = duffy_config::load_text(&text, "test").unwrap();
    with_database(&config, true, async |db| {
        Ok(duffy_server::db::migrate::setup_db(db).await?)
    })
    .unwrap();
    (directory, Arc::new(config))
}
