//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A place in a configuration file. Lines and columns count from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The file, as it was named by the caller.
    pub file: Arc<str>,
    /// Line, from one; zero when a whole file is meant.
    pub line: usize,
    /// Column in characters, from one.
    pub column: usize,
}

impl Mark {
    /// The place that means a whole file.
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

/// One thing that is wrong, told in one line: `file:line: key.path: what, and what would be right`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands, when it stands in a file.
    pub mark: Option<Mark>,
    /// The dotted path of keys; empty for a whole document.
    pub path: String,
    /// What is wrong and what would be right.
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
        // Text from a file can hold line breaks; a message is one line all the same.
        for part in self.message.split_inclusive(['\n', '\r']) {
            f.write_str(part.trim_end_matches(['\n', '\r']))?;
            if part.ends_with(['\n', '\r']) {
                f.write_str(" ")?;
            }
        }
        Ok(())
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory that was asked for cannot be read.
    #[error("{}: cannot read this configuration: {source}; name an existing, readable file or directory", path.display())]
    Unreadable {
        /// The path in question.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is too large to be a configuration.
    #[error("{}: {size} bytes is too large for a configuration (at most {limit}); is this the right file?", path.display())]
    TooLarge {
        /// The path in question.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file is not YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// Two places say things that cannot be merged.
    #[error("{0}")]
    Conflict(Problem),
    /// Keys or values are wrong: every problem found, a line each.
    #[error("{}", join_lines(.0))]
    Invalid(Vec<Problem>),
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
    /// Where.
    pub mark: Mark,
    /// What is wrong and what would be right.
    pub message: String,
}
