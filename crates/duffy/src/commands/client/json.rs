//! JSON as Python prints it: four spaces, ASCII only, floats as by `repr`.

use duffy_config::python::{json_text, number_repr};
use serde_json::Value;

/// Formats a value, without a line break at the end.
pub fn render(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, 0, &mut out);
    out
}

fn write_value(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_repr(number)),
        Value::String(text) => out.push_str(&json_text(text)),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Object(members) if members.is_empty() => out.push_str("{}"),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                break_line(n > 0, depth + 1, out);
                write_value(item, depth + 1, out);
            }
            break_line(false, depth, out);
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (n, (key, member)) in members.iter().enumerate() {
                break_line(n > 0, depth + 1, out);
                out.push_str(&json_text(key));
                out.push_str(": ");
                write_value(member, depth + 1, out);
            }
            break_line(false, depth, out);
            out.push('}');
        }
    }
}

fn break_line(comma: bool, depth: usize, out: &mut String) {
    out.push_str(if comma { ",\n" } else { "\n" });
    out.extend(std::iter::repeat_n("    ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_python_prints_it() {
        let value = json!({
            "b": "é\u{7f}\u{1F600}\u{2028}\u{8}\u{c}\n\r\t\0\"\\/", "a": [], "o": {}, "l": [1, [true, null]]
        });
        let expected = r#"{
    "b": "\u00e9\u007f\ud83d\ude00\u2028\b\f\n\r\t\u0000\"\\/",
    "a": [],
    "o": {},
    "l": [
        1,
        [
            true,
            null
        ]
    ]
}"#;
        assert_eq!(render(&value), expected);
    }

    #[test]
    fn numbers_as_python_prints_them() {
        for text in [
            "0",
            "-1",
            "18446744073709551615",
            "1e+16",
            "1000000000000000.0",
            "1.2345678901234568e+17",
            "1e-05",
            "0.0001",
            "21600.0",
            "1e+22",
            "1.5e+300",
            "-0.0",
            "0.1",
            "5e-324",
            "100.0",
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(render(&value), text);
        }
    }
}
