//! The configuration as the commands see it: read once, beside what the command line says.

use std::path::PathBuf;
use std::sync::Arc;

use duffy_config::Config;

use crate::failure::Failure;
use crate::logging::LogLevel;

/// The configuration, and the log level of the command line.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// All files, merged and checked.
    pub config: Arc<Config>,
    loglevel: Option<LogLevel>,
}

impl Loaded {
    /// Reads these files and directories, or the default ones.
    pub fn load(paths: &[PathBuf], loglevel: Option<LogLevel>) -> Result<Self, Failure> {
        let config = duffy_config::load(paths).map_err(Failure::new)?;
        Ok(Self {
            config: Arc::new(config),
            loglevel,
        })
    }

    /// How much a command logs that ends by itself.
    pub fn command_level(&self) -> LogLevel {
        self.loglevel.unwrap_or(LogLevel::Warning)
    }

    /// Starts the log of a server, and says in it what of the configuration may not be meant.
    /// `level` is one that the command itself was given.
    #[cfg(feature = "server")]
    pub fn start_server_log(&self, level: Option<LogLevel>) {
        let configured = self.config.app.as_ref().and_then(|app| app.loglevel);
        self.start_log(level, configured);
    }

    /// The same for a server whose own section has this level.
    #[cfg(feature = "legacy")]
    pub fn start_log_of(&self, configured: Option<duffy_config::LogLevel>) {
        self.start_log(None, configured);
    }

    #[cfg(any(feature = "server", feature = "legacy"))]
    fn start_log(&self, level: Option<LogLevel>, configured: Option<duffy_config::LogLevel>) {
        let level = level
            .or(self.loglevel)
            .or_else(|| configured.map(LogLevel::from))
            .unwrap_or(LogLevel::Info);
        crate::logging::init(level);
        for warning in &self.config.warnings {
            tracing::warn!("{warning}");
        }
    }
}
