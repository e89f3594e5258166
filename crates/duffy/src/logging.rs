//! The log: to stderr, with time, level and fields.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::output;

/// How much is logged, by the names of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything, libraries too.
    Trace,
    /// What helps to find an error.
    Debug,
    /// What happens.
    Info,
    /// What needs a look.
    Warning,
    /// What went wrong.
    Error,
    /// The same as `error`.
    Critical,
}

impl From<duffy_config::LogLevel> for LogLevel {
    fn from(level: duffy_config::LogLevel) -> Self {
        use duffy_config::LogLevel as Configured;
        match level {
            Configured::Trace => LogLevel::Trace,
            Configured::Debug => LogLevel::Debug,
            Configured::Info => LogLevel::Info,
            Configured::Warning => LogLevel::Warning,
            Configured::Error => LogLevel::Error,
            Configured::Critical => LogLevel::Critical,
        }
    }
}

impl LogLevel {
    /// The level of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::from_str(name, true).ok()
    }

    /// Libraries log a level less than Duffy itself: their `info` is nobody's at a site.
    fn directives(self) -> &'static str {
        match self {
            LogLevel::Trace => "debug,duffy=trace",
            LogLevel::Debug => "info,duffy=debug",
            LogLevel::Info => "warn,duffy=info",
            LogLevel::Warning => "warn",
            LogLevel::Error | LogLevel::Critical => "error",
        }
    }
}

/// Starts logging. `RUST_LOG` goes before the level.
pub fn init(level: LogLevel) {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .inspect_err(|error| {
                output::words(&format!(
                    "warning: RUST_LOG={text:?} is not used: {error}; it looks like info,duffy=debug"
                ));
            })
            .ok(),
        _ => None,
    };
    let stderr_takes_colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(level.directives())))
        .with_writer(std::io::stderr)
        .with_ansi(stderr_takes_colours)
        // Whatever could be said of a failed write to stderr would go to stderr.
        .log_internal_errors(false)
        .try_init();
    // Fails only when logging has started already.
    drop(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_names_of_the_configuration() {
        assert_eq!(LogLevel::from_name("WARNING"), Some(LogLevel::Warning));
        assert_eq!(LogLevel::from_name("critical"), Some(LogLevel::Critical));
        assert_eq!(LogLevel::from_name("warn"), None);
        for level in LogLevel::value_variants() {
            assert!(EnvFilter::try_new(level.directives()).is_ok(), "{level:?}");
        }
    }
}
