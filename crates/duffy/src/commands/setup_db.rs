//! `duffy setup-db`: makes the tables in an empty database.

use std::process::ExitCode;

use clap::Args;
#[cfg(feature = "server")]
use duffy_server::credentials::Credentials;
#[cfg(feature = "server")]
use duffy_server::db::{Db, migrate};

#[cfg(feature = "server")]
use super::server_calls::connect;
use crate::config::Loaded;
#[cfg(feature = "server")]
use crate::failure::Failure;

/// What to put into the tables.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy setup-db
  duffy -c dev.yaml setup-db --test-data

A database that has one of the tables already is left as it is, exit code 1; to bring it up to \
date, see `duffy migration upgrade`.")]
pub struct SetupDbArgs {
    /// Add tenants and nodes to try things with; the keys of these tenants are known to everybody
    #[arg(long, overrides_with = "no_test_data")]
    pub test_data: bool,

    #[arg(long, hide = true, overrides_with = "test_data")]
    no_test_data: bool,
}

/// Makes the tables.
#[cfg(feature = "server")]
pub fn main(args: &SetupDbArgs, loaded: &Loaded) -> ExitCode {
    crate::logging::init(loaded.command_level());
    let done = connect(loaded)
        .and_then(|server| server.with_database(true, async |db| setup(&db, args.test_data).await))
        .and_then(|tenants| crate::output::data(&report(&tenants)));
    crate::output::finish(done)
}

/// Never reached: the feature is missing.
#[cfg(not(feature = "server"))]
pub fn main(_: &SetupDbArgs, _: &Loaded) -> ExitCode {
    ExitCode::FAILURE
}

/// Makes them. With test data: names and keys of its tenants.
#[cfg(feature = "server")]
async fn setup(db: &Db, test_data: bool) -> Result<Vec<(String, String)>, Failure> {
    migrate::setup_db(db).await.map_err(Failure::new)?;
    if !test_data {
        return Ok(Vec::new());
    }
    let keys = migrate::TEST_TENANTS
        .map(|(name, ..)| (name.to_owned(), migrate::test_api_key(name).to_string()));
    let credentials = Credentials::new();
    let hash = async |key: &str| credentials.hash(key).await.map_err(Failure::new);
    let stored = [hash(&keys[0].1).await?, hash(&keys[1].1).await?];
    let inserted = migrate::insert_test_data(db, &stored).await;
    inserted.map_err(Failure::new)?;
    Ok(keys.to_vec())
}

/// What was made; `tenants` are the names and keys of the test data's tenants, if any.
#[cfg(feature = "server")]
fn report(tenants: &[(String, String)]) -> String {
    let mut lines = vec!["Made the database's tables.".to_owned()];
    if !tenants.is_empty() {
        lines.push(
            "Made test data. Everybody knows the keys of its tenants, keep it out of production:"
                .to_owned(),
        );
    }
    lines.extend(tenants.iter().map(|(name, key)| format!("\t{name}:{key}")));
    lines.join("\n")
}

#[cfg(all(test, feature = "server"))]
mod tests {
    #[test]
    fn keys_are_told_when_there_are_any() {
        assert_eq!(super::report(&[]), "Made the database's tables.");
        let with_data = super::report(&[("admin".to_owned(), "key".to_owned())]);
        assert!(
            with_data.ends_with("production:\n\tadmin:key"),
            "{with_data}"
        );
    }
}
