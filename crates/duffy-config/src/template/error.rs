//! Errors of templates.

use minijinja::{Error, ErrorKind};

/// Why a template cannot be rendered. The message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the template {}: {message}", shorten(.template))]
pub struct TemplateError {
    /// The template.
    pub template: String,
    /// What is wrong.
    pub message: String,
}

impl TemplateError {
    pub(super) fn new(template: &str, error: &Error) -> Self {
        let mut message = error.kind().to_string();
        if let Some(detail) = error.detail() {
            message = format!("{message}: {detail}");
        }
        if message.contains('%') && error.kind() == ErrorKind::InvalidOperation {
            message.push_str("; instead of \"%s\" % x write \"%s\" | format(x)");
        }
        Self {
            template: template.to_owned(),
            message,
        }
    }
}

/// Quotes a template on one line, and cuts a long one.
fn shorten(template: &str) -> String {
    const LONGEST: usize = 80;
    let line: Vec<_> = template.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &line[..end]),
        None => format!("{line:?}"),
    }
}

/// The error of a filter or method.
pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}
