//! Values as Python prints them.

use minijinja::value::{Value, ValueKind};

use crate::python::{float_repr, text_repr};

/// Python's `str()`.
pub(super) fn print(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        _ => print_inside(value),
    }
}

/// Python's `repr()`.
fn print_inside(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => "Undefined".into(),
        ValueKind::None => "None".into(),
        ValueKind::String => text_repr(value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => {
            f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float_repr)
        }
        ValueKind::Seq if value.is_tuple() => {
            let items = items(value);
            if items.len() == 1 {
                format!("({},)", items[0])
            } else {
                format!("({})", items.join(", "))
            }
        }
        ValueKind::Seq => format!("[{}]", items(value).join(", ")),
        ValueKind::Map => {
            let pairs = value.try_iter().into_iter().flatten().map(|key| {
                let found = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", print_inside(&key), print_inside(&found))
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

fn items(value: &Value) -> Vec<String> {
    value
        .try_iter()
        .into_iter()
        .flatten()
        .map(|item| print_inside(&item))
        .collect()
}
