//! The only place that prints: data to stdout, words to stderr. Printed text cannot control a terminal.

use std::borrow::Cow;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use crate::failure::Failure;

/// Returns whether a character can control a terminal, or change the order of the text around it.
pub fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Replaces all harmful characters except tabs and line breaks.
fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| is_harmful(c) && c != '\n' && c != '\t';
    if text.contains(harmful) {
        text.replace(harmful, "\u{fffd}").into()
    } else {
        text.into()
    }
}

/// Quotes a text as one word of a shell command.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,=%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Prints data, ending with a line break.
///
/// A closed pipe (`duffy … | head`) is not a failure: the reader has what it wants. A full disk is a failure.
pub fn data(text: &str) -> Result<(), Failure> {
    let text = harmless(text);
    let mut stdout = std::io::stdout().lock();
    let line_break = if text.ends_with('\n') { "" } else { "\n" };
    let written = write!(stdout, "{text}{line_break}").and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(format_args!(
            "can't write to the standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Prints words to stderr. Nothing can report an error of this.
pub fn words(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", harmless(text));
}

/// Prints why a command failed, if it did, and returns its exit code.
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    for line in failure.text.lines() {
        words(&format!("{}{line}", failure.prefix));
    }
    ExitCode::FAILURE
}

/// Prints help to stdout, or wrong usage to stderr with exit code 2.
pub fn usage(error: &clap::Error) -> ExitCode {
    match error.print() {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(shell_word("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(shell_word("/a b/it's"), "'/a b/it'\\''s'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn nothing_printed_does_anything_to_a_terminal() {
        assert_eq!(
            harmless("a\tb\n\u{1b}[2J\r\u{9b}1m\u{7f}\u{202e}é"),
            "a\tb\n\u{fffd}[2J\u{fffd}\u{fffd}1m\u{fffd}\u{fffd}é"
        );
        assert!(matches!(harmless("a\tb\né"), Cow::Borrowed(_)));
    }
}
