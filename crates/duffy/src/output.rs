//! The only place that prints: data to stdout, words to stderr. No text from elsewhere does anything to a terminal.

use std::borrow::Cow;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use crate::failure::Failure;

/// Whether a character may do something to a terminal, or change the order of the text around it.
pub fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text without harmful characters, but for tabs and line breaks.
fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| is_harmful(c) && c != '\n' && c != '\t';
    if text.contains(harmful) {
        text.replace(harmful, "\u{fffd}").into()
    } else {
        text.into()
    }
}

/// A text as one word of a shell's command.
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
/// A reader that has gone (`duffy … | head`) has read what it wanted: that is no failure. A full
/// disk is one.
pub fn data(text: &str) -> Result<(), Failure> {
    let text = harmless(text);
    let mut stdout = std::io::stdout().lock();
    let line_break = if text.ends_with('\n') { "" } else { "\n" };
    let written = write!(stdout, "{text}{line_break}").and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure(format!(
            "can't write to the standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Prints words. When even that fails there is nobody left to tell.
pub fn words(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", harmless(text));
}

/// Prints what is wrong, each line with its mark.
pub fn error(failure: &Failure) {
    for line in failure.0.lines() {
        words(&format!("error: {line}"));
    }
}

/// The exit code of a command: 0, or 1 and its message.
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error(&failure);
            ExitCode::FAILURE
        }
    }
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
