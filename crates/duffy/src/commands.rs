//! The commands: a file each, compiled if its feature is there.

#[cfg(feature = "server")]
mod admin;
#[cfg(feature = "client")]
mod client;
mod config;
#[cfg(feature = "server")]
mod database;
mod dev_shell;
#[cfg(feature = "legacy")]
mod legacy;
#[cfg(all(feature = "server", not(feature = "legacy")))]
#[path = "commands/legacy_missing.rs"]
mod legacy;
#[cfg(feature = "server")]
mod migration;
#[cfg(feature = "server")]
mod quickstart;
#[cfg(feature = "server")]
mod servers;
#[cfg(feature = "server")]
mod setup_db;

use std::sync::Arc;

use duffy_config::Config;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::logging::{self, LogLevel};

/// Runs a command.
pub fn run(cli: Cli) -> Result<(), Failure> {
    if let Some(feature) = missing_feature(&cli.command) {
        return Err(Failure::new(format_args!(
            "this build of duffy lacks the feature `{feature}`, which the command needs: \
             install the full `duffy` package, or build with `--features {feature}`"
        )));
    }
    let config = match &cli.command {
        // It creates its own configuration.
        Command::Quickstart(_) => duffy_config::load_text("", "")?,
        _ => duffy_config::load(&cli.config)?,
    };
    start_log(&cli, &config);
    let config = Arc::new(config);
    match cli.command {
        Command::Config(command) => config::run(&command, &config),
        Command::DevShell(_) => dev_shell::run(&config),
        #[cfg(feature = "client")]
        Command::Client(args) => client::run(args, &config),
        #[cfg(feature = "legacy")]
        Command::ServeLegacy(args) => legacy::run(args, &config),
        #[cfg(feature = "server")]
        Command::Quickstart(args) => quickstart::run(&args),
        #[cfg(feature = "server")]
        Command::Run(args) => servers::run(args, config),
        #[cfg(feature = "server")]
        Command::Serve(args) => servers::serve(args, config),
        #[cfg(feature = "server")]
        Command::Worker(args) => servers::work(&args, config),
        #[cfg(feature = "server")]
        Command::Admin(command) => admin::run(&command, &config),
        #[cfg(feature = "server")]
        Command::SetupDb(args) => setup_db::run(&args, &config),
        #[cfg(feature = "server")]
        Command::Migration(command) => migration::run(&command, &config),
        #[cfg(not(all(feature = "client", feature = "legacy", feature = "server")))]
        _ => unreachable!("`missing_feature` covers all commands that this build lacks"),
    }
}

/// The features that a command can need, and whether this build has them. The names are those of the original's extras.
const FEATURES: [(&str, bool); 7] = [
    ("app", cfg!(feature = "app")),
    ("tasks", cfg!(feature = "tasks")),
    ("sqlite", cfg!(feature = "sqlite")),
    // Either engine will do.
    ("postgresql", cfg!(feature = "server")),
    ("legacy", cfg!(feature = "legacy")),
    ("client", cfg!(feature = "client")),
    ("admin", cfg!(feature = "admin")),
];

/// Returns the first feature that a command needs and this build lacks.
fn missing_feature(command: &Command) -> Option<&'static str> {
    let needed: &[&str] = match command {
        Command::Quickstart(_) => &["app", "tasks", "sqlite"],
        Command::Run(_) => &["app", "tasks"],
        Command::Serve(_) => &["app"],
        Command::ServeLegacy(_) => &["legacy"],
        Command::Worker(_) => &["tasks"],
        Command::Client(_) => &["client"],
        Command::Admin(_) => &["admin"],
        Command::SetupDb(_) | Command::Migration(_) => &["postgresql"],
        Command::Config(_) | Command::DevShell(_) => &[],
    };
    let mut features = FEATURES.into_iter();
    let missing = features.find(|(name, is_built)| !is_built && needed.contains(name))?;
    Some(missing.0)
}

/// Starts the log. Servers log more than other commands, and repeat the warnings of the configuration.
fn start_log(cli: &Cli, config: &Config) {
    let of_app = config.app.as_ref().and_then(|app| app.loglevel);
    let (argument, is_server, configured) = match &cli.command {
        Command::Run(_) | Command::Serve(_) => (None, true, of_app),
        Command::Worker(args) => (args.loglevel, true, of_app),
        Command::ServeLegacy(_) => {
            let section = config.metaclient.as_ref();
            (None, true, section.and_then(|section| section.loglevel))
        }
        _ => (None, false, None),
    };
    let default = if is_server {
        LogLevel::Info
    } else {
        LogLevel::Warning
    };
    let level = argument.or(cli.loglevel).or(configured).unwrap_or(default);
    logging::init(level);
    for warning in config.warnings.iter().filter(|_| is_server) {
        tracing::warn!("{warning}");
    }
}
