//! `duffy setup-db`: creates the tables in an empty database.

use std::fmt::Write;

use duffy_config::Config;
use duffy_server::credentials::Credentials;
use duffy_server::db::{Db, migrate};

use super::database::with_database;
use crate::args::database::SetupDbArgs;
use crate::failure::Failure;
use crate::output;

/// Creates the tables.
pub fn run(args: &SetupDbArgs, config: &Config) -> Result<(), Failure> {
    let mut report = "Created the database's tables.".to_owned();
    with_database(config, true, async |db| {
        migrate::setup_db(db).await?;
        if args.test_data {
            report += "\nCreated test data. The keys of its tenants are public, keep it out of production:";
            for (name, key) in insert_test_data(db).await? {
                let _ = write!(report, "\n\t{name}:{key}");
            }
        }
        Ok(())
    })?;
    output::data(&report)
}

/// Inserts the test data, and returns the names and keys of its tenants.
async fn insert_test_data(db: &Db) -> Result<[(&'static str, String); 2], Failure> {
    let tenants =
        migrate::TEST_TENANTS.map(|(name, ..)| (name, migrate::test_api_key(name).to_string()));
    let credentials = Credentials::new();
    let [(_, first), (_, second)] = &tenants;
    let hashes = [
        credentials.hash(first).await?,
        credentials.hash(second).await?,
    ];
    migrate::insert_test_data(db, &hashes).await?;
    Ok(tenants)
}
