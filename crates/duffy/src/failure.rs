//! Why a command failed.

use std::fmt;

/// Why a command failed. Its exit code is 1. The default prints nothing, for a command that has printed everything itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// The lines to print.
    pub text: String,
    /// What is printed before each line.
    pub prefix: &'static str,
}

impl Failure {
    /// Returns a failure with one line for each problem, printed after `error: `.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            text: message.to_string(),
            prefix: "error: ",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// This makes `?` work with all errors, so `Failure` itself cannot implement `Error`.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}
