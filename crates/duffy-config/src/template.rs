//! Templates, rendered as Jinja2's `Template(text).render(**values)` does.

mod filters;
mod methods;
mod print;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use minijinja::value::{Object, Serde, Value as TemplateValue};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value};

use crate::decode::{Cursor, Report};

/// Why a template gives no text. The message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the template {}: {message}", shorten(.template))]
pub struct TemplateError {
    /// The template.
    pub template: String,
    /// What is wrong.
    pub message: String,
}

/// A template in a message: one line, and not all of a long one.
fn shorten(template: &str) -> String {
    const LONGEST: usize = 80;
    let line: Vec<_> = template.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &line[..end]),
        None => format!("{line:?}"),
    }
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_formatter(|out, _, value| {
            out.write_str(&print::print(value)).map_err(|error| {
                Error::new(ErrorKind::BadSerialization, "cannot print a value").with_source(error)
            })
        });
        environment.set_unknown_method_callback(methods::call);
        filters::add_to(&mut environment);
        environment
    })
}

/// Renders a template with values.
///
/// What is not defined gives nothing; something of it (`a.b` without `a`) is an error.
///
/// # Errors
/// The template is wrong, or asks for something that cannot be done.
pub fn render(text: &str, values: &Map<String, Value>) -> Result<String, TemplateError> {
    render_layered(text, values, &Map::new()).map(|rendered| rendered.text)
}

/// What a template gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Whether the template looked at a value of the overrides, so that the text may contain data of it.
    pub overridden: bool,
}

/// Renders a template with values, of which those in `overrides` hide others of the same name.
pub(crate) fn render_layered(
    text: &str,
    values: &Map<String, Value>,
    overrides: &Map<String, Value>,
) -> Result<Rendered, TemplateError> {
    let layers = Arc::new(Layers {
        values: convert_members(values),
        overrides: convert_members(overrides),
        overridden: AtomicBool::new(false),
    });
    // Jinja2 makes all line breaks of a template alike.
    let source = text.replace("\r\n", "\n").replace('\r', "\n");
    let rendered =
        environment().render_str(&source, TemplateValue::from_dyn_object(layers.clone()));
    Ok(Rendered {
        text: rendered.map_err(|error| explain(text, &error))?,
        overridden: layers.overridden.load(Ordering::Relaxed),
    })
}

/// The variables of a template. It notes whether the template looks at an override: each look-up of a variable comes
/// here, however the template is written.
#[derive(Debug)]
struct Layers {
    values: HashMap<String, TemplateValue>,
    overrides: HashMap<String, TemplateValue>,
    overridden: AtomicBool,
}

impl Object for Layers {
    fn get_value(self: &Arc<Self>, key: &TemplateValue) -> Option<TemplateValue> {
        let name = key.as_str()?;
        if let Some(value) = self.overrides.get(name) {
            self.overridden.store(true, Ordering::Relaxed);
            return Some(value.clone());
        }
        self.values.get(name).cloned()
    }
}

fn convert_members(values: &Map<String, Value>) -> HashMap<String, TemplateValue> {
    values
        .iter()
        .map(|(name, value)| (name.clone(), TemplateValue::from(Serde(value))))
        .collect()
}

/// Checks that a template can be understood, and notes a problem if not.
pub(crate) fn check(cursor: &Cursor<'_>, text: &str, report: &mut Report) {
    if let Err(error) = environment().template_from_str(text) {
        let line = error.line().filter(|_| text.trim_end().contains('\n'));
        let place = line
            .map(|line| format!(" in its line {line}"))
            .unwrap_or_default();
        let detail = error.detail().unwrap_or("it cannot be understood");
        cursor.refuse::<()>(report, format!("this template is wrong{place}: {detail}"));
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn explain(text: &str, error: &Error) -> TemplateError {
    let kind = error.kind().to_string();
    let mut message = match error.detail() {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    };
    if message.contains('%') && error.kind() == ErrorKind::InvalidOperation {
        message.push_str("; instead of \"%s\" % x write \"%s\" | format(x)");
    }
    TemplateError {
        template: text.to_owned(),
        message,
    }
}
