//! The log: to stderr, with time, level and fields, each event in one line.

use std::fmt;
use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

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
        .fmt_fields(CleanFields)
        .with_ansi(stderr_takes_colours)
        // Whatever could be said of a failed write to stderr would go to stderr.
        .log_internal_errors(false)
        .try_init();
    // Fails only when logging has started already.
    drop(started);
}

/// Messages and fields as usual, but with line breaks and other harmful characters escaped: what a node or a client says
/// neither begins a line of its own nor does anything to a terminal. All else in a line is Duffy's own.
struct CleanFields;

impl<'writer> FormatFields<'writer> for CleanFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        for c in text.chars() {
            if output::is_harmful(c) {
                write!(writer, "{}", c.escape_default())?;
            } else {
                writer.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let evil = "a\r\nb\u{1b}[2J\u{7}\u{7f}\u{9b}\u{202e}\0é";
        for colours in [false, true] {
            let log = Log::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_writer(move || writer.clone())
                .with_ansi(colours)
                .fmt_fields(CleanFields)
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                let _span = tracing::info_span!("span", field = %evil).entered();
                let error = io::Error::other(evil);
                tracing::info!(shown = %evil, debug = ?evil, text = evil, %error, "{evil}");
                tracing::info!(error = &error as &dyn std::error::Error, "next");
            });
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            let lines: Vec<_> = text.split_terminator('\n').collect();
            assert_eq!(lines.len(), 2, "{text:?}");
            assert!(
                lines[0].contains("shown=a\\r\\nb") && lines[1].contains("next"),
                "{text:?}"
            );
            for line in lines {
                // The formatter's own colours are of no other form.
                let line = line.replace("\u{1b}[", if colours { "" } else { "\u{1b}[" });
                assert!(!line.contains(output::is_harmful), "{line:?}");
                assert!(
                    !line.contains("2J") || line.contains("1b}[2J") || line.contains("x1b[2J"),
                    "{line:?}"
                );
            }
        }
    }

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
