//! The log: one line for each event on stderr, with time, level and fields.

use std::fmt;
use std::io::IsTerminal;

use clap::builder::{PossibleValuesParser, TypedValueParser};
pub use duffy_config::LogLevel;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

use crate::output;

/// The log levels by their names in the configuration.
const LEVELS: [(&str, LogLevel); 6] = [
    ("trace", LogLevel::Trace),
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warning", LogLevel::Warning),
    ("error", LogLevel::Error),
    ("critical", LogLevel::Critical),
];

/// Returns the level of this name, in any case.
pub fn find_level(name: &str) -> Option<LogLevel> {
    let mut levels = LEVELS.iter();
    let found = levels.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(found.1)
}

/// Parses an argument that is the name of a level.
pub fn level_parser() -> impl TypedValueParser<Value = LogLevel> {
    PossibleValuesParser::new(LEVELS.map(|(name, _)| name))
        .try_map(|name| find_level(&name).ok_or("no such level"))
}

/// Libraries log one level less than Duffy: their `info` does not help an operator.
fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "debug,duffy=trace",
        LogLevel::Debug => "info,duffy=debug",
        LogLevel::Info => "warn,duffy=info",
        LogLevel::Warning => "warn",
        LogLevel::Error | LogLevel::Critical => "error",
    }
}

/// Starts logging. `RUST_LOG` overrides the level.
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
    // Fails only if logging has started already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(directives(level))))
        .with_writer(std::io::stderr)
        .fmt_fields(CleanFields)
        .with_ansi(stderr_takes_colours)
        // An error about a failed write to stderr would go to stderr too.
        .log_internal_errors(false)
        .try_init();
}

/// Formats messages and fields as usual, but escapes line breaks and other harmful characters, because they may come from a
/// node or a client. They cannot start a new line or control a terminal.
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
                // The formatter's own colours have this form only.
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
        assert_eq!(find_level("WARNING"), Some(LogLevel::Warning));
        assert_eq!(find_level("critical"), Some(LogLevel::Critical));
        assert_eq!(find_level("warn"), None);
        for (_, level) in LEVELS {
            assert!(EnvFilter::try_new(directives(level)).is_ok(), "{level:?}");
        }
    }
}
