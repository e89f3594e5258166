//! Templates, rendered as Jinja2's `Template(text).render(**values)` does.

mod error;
mod filters;
mod methods;
mod print;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use minijinja::value::{Object, Serde, Value as TemplateValue};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value};

pub use error::TemplateError;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
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
});

/// Renders a template with values.
///
/// An undefined variable gives no text; a member of one (`a.b` without `a`) is an error.
///
/// # Errors
/// The template is wrong, or its evaluation fails.
pub fn render(text: &str, values: &Map<String, Value>) -> Result<String, TemplateError> {
    render_layered(text, values, &Map::new()).map(|rendered| rendered.text)
}

/// A rendered template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Whether the template read a value of the overrides, so that the text may contain their data.
    pub overridden: bool,
}

/// Renders a template with values. Those in `overrides` take precedence.
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
    // Jinja2 replaces all line breaks of a template by `\n`.
    let source = text.replace("\r\n", "\n").replace('\r', "\n");
    let rendered = ENVIRONMENT.render_str(&source, TemplateValue::from_dyn_object(layers.clone()));
    Ok(Rendered {
        text: rendered.map_err(|error| TemplateError::new(text, &error))?,
        overridden: layers.overridden.load(Ordering::Relaxed),
    })
}

/// The variables of a template. Records whether the template reads an override: each look-up of a variable comes
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
        let overriding = self.overrides.get(name);
        self.overridden
            .fetch_or(overriding.is_some(), Ordering::Relaxed);
        overriding.or_else(|| self.values.get(name)).cloned()
    }
}

fn convert_members(values: &Map<String, Value>) -> HashMap<String, TemplateValue> {
    values
        .iter()
        .map(|(name, value)| (name.clone(), TemplateValue::from(Serde(value))))
        .collect()
}

/// Checks the syntax of a template. Returns the problem in one line.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let Err(error) = ENVIRONMENT.template_from_str(text) else {
        return Ok(());
    };
    let line = error.line().filter(|_| text.trim_end().contains('\n'));
    let line = line.map(|line| format!(" in its line {line}"));
    let detail = error.detail().unwrap_or("the syntax is wrong");
    Err(format!(
        "this template is wrong{}: {detail}",
        line.unwrap_or_default()
    ))
}
