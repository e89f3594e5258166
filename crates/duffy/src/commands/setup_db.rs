//! `duffy setup-db`: makes the tables in an empty database.

use std::process::ExitCode;

use clap::Args;

use crate::config::Loaded;

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
    use super::server_calls::{Schema, connect};

    crate::logging::init(loaded.command_level());
    let done = connect(loaded)
        .and_then(|server| server.setup(args.test_data))
        .and_then(|tenants| crate::output::data(&report(&tenants)));
    crate::output::finish(done)
}

/// Never reached: the feature is missing.
#[cfg(not(feature = "server"))]
pub fn main(_: &SetupDbArgs, _: &Loaded) -> ExitCode {
    ExitCode::FAILURE
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
