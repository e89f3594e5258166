//! Problems of a configuration, with their positions.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A position in a configuration file. Lines and columns count from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The file, as the caller named it.
    pub file: Arc<str>,
    /// Line, from one; zero for a whole file.
    pub line: usize,
    /// Column in characters, from one.
    pub column: usize,
}

impl Mark {
    /// The position that means a whole file.
    pub(crate) fn whole(file: &str) -> Self {
        Self {
            file: Arc::from(file),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.file)
        } else {
            write!(f, "{}:{}", self.file, self.line)
        }
    }
}

/// A problem, printed in one line: `file:line: key.path: what is wrong, and how to fix it`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its position, if it is in a file.
    pub mark: Option<Mark>,
    /// The dotted path of keys; empty for a whole document.
    pub path: String,
    /// What is wrong and how to fix it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mark) = &self.mark {
            write!(f, "{mark}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        // Text from a file can contain line breaks; a message stays on one line.
        f.write_str(&self.message.replace(['\n', '\r'], " "))
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A named file or directory cannot be read.
    #[error("{}: cannot read this configuration: {source}; name an existing, readable file or directory", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file is too large to be a configuration.
    #[error("{}: {size} bytes is too large for a configuration (at most {limit}); is this the right file?", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file is not valid YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// Keys or values are wrong, or cannot be merged: every problem found, a line each.
    #[error("{}", join_lines(.0))]
    Invalid(Vec<Problem>),
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }
}

fn join_lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Why a text is not YAML that Duffy can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{mark}: column {}: {message}", .mark.column)]
pub struct YamlError {
    /// The position.
    pub mark: Mark,
    /// What is wrong and how to fix it.
    pub message: String,
}
