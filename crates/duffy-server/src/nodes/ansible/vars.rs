//! The file of extra variables, in which text from outside the configuration is marked: Ansible never evaluates it.
//!
//! Ansible treats extra variables as trusted templates. The file is YAML, because the tag `!unsafe` removes this trust from
//! keys of mappings as well; the mark that Ansible knows in JSON is for values only. Before 2.19 keys lose even that mark in
//! some filters, so keys that could be templates are left out, with their values.

use std::fmt::Write as _;

use duffy_config::{RenderedVar, RenderedVars};
use serde_json::{Map, Value};

/// Where a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// From the configuration: Ansible evaluates templates in it.
    Configuration,
    /// From anywhere else.
    Outside,
}

/// Writes the variables of the configuration and those from outside, which win, in ASCII.
pub(super) fn to_yaml(configured: &RenderedVars, outside: &Map<String, Value>) -> String {
    let mut yaml = Yaml {
        text: String::from("{"),
        left_out: 0,
    };
    for (name, var) in configured {
        if !outside.contains_key(name) {
            yaml.member(name, Origin::Configuration, |yaml| yaml.variable(var));
        }
    }
    for (name, value) in outside {
        yaml.member(name, Origin::Configuration, |yaml| {
            yaml.value(value, Origin::Outside);
        });
    }
    yaml.text.push_str("}\n");
    if yaml.left_out > 0 {
        tracing::warn!(
            left_out = yaml.left_out,
            "data of nodes has keys with braces, which could be templates; the playbook does not get them"
        );
    }
    yaml.text
}

struct Yaml {
    text: String,
    left_out: usize,
}

impl Yaml {
    /// Writes a member of a mapping. The question mark removes YAML's limit on the length of keys.
    fn member(&mut self, key: &str, origin: Origin, write_value: impl FnOnce(&mut Self)) {
        self.text.push_str("? ");
        self.text(key, origin);
        self.text.push_str(" : ");
        write_value(self);
        self.text.push_str(",\n");
    }

    fn variable(&mut self, var: &RenderedVar) {
        match var {
            RenderedVar::Text(rendered) if rendered.overridden => {
                self.text(&rendered.text, Origin::Outside);
            }
            RenderedVar::Text(rendered) => self.text(&rendered.text, Origin::Configuration),
            RenderedVar::Plain(value) => self.value(value, Origin::Configuration),
            RenderedVar::Mapping(vars) => {
                self.text.push('{');
                for (name, var) in vars {
                    self.member(name, Origin::Configuration, |yaml| yaml.variable(var));
                }
                self.text.push('}');
            }
        }
    }

    fn value(&mut self, value: &Value, origin: Origin) {
        match value {
            Value::String(text) => self.text(text, origin),
            // Without the tag, YAML reads a number like 1e5 as text.
            Value::Number(number) if number.is_f64() => {
                let _ = write!(self.text, "!!float \"{number}\"");
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                let _ = write!(self.text, "{value}");
            }
            Value::Array(items) => {
                self.text.push('[');
                for item in items {
                    self.value(item, origin);
                    self.text.push_str(",\n");
                }
                self.text.push(']');
            }
            Value::Object(map) => {
                self.text.push('{');
                for (key, value) in map {
                    if origin == Origin::Outside && key.contains('{') {
                        self.left_out += 1;
                    } else {
                        self.member(key, origin, |yaml| yaml.value(value, origin));
                    }
                }
                self.text.push('}');
            }
        }
    }

    fn text(&mut self, text: &str, origin: Origin) {
        if origin == Origin::Outside && !looks_like_other_kind(text) {
            self.text.push_str("!unsafe ");
        }
        self.text.push('"');
        for char in text.chars() {
            match char {
                '"' | '\\' => self.text.extend(['\\', char]),
                ' '..='~' => self.text.push(char),
                _ => {
                    let _ = write!(self.text, "\\U{:08X}", u32::from(char));
                }
            }
        }
        self.text.push('"');
    }
}

/// Whether YAML 1.1 may read a text as a number, a time, yes, no or nothing. Since 2.19 Ansible does so even with the tag,
/// so such a text goes without the tag. It contains nothing that Ansible evaluates.
fn looks_like_other_kind(text: &str) -> bool {
    const WORDS: [&str; 14] = [
        "", "~", "null", "yes", "no", "true", "false", "on", "off", "=", "<<", ".inf", "+.inf",
        "-.inf",
    ];
    // Python's `$` also matches before a newline at the end.
    let text = text.strip_suffix('\n').unwrap_or(text);
    let in_number = |char: char| char.is_ascii_hexdigit() || "xXoO_.:+-tTzZ \t".contains(char);
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
        || text.eq_ignore_ascii_case(".nan")
        || (text.starts_with(|char: char| char.is_ascii_digit() || "+-.".contains(char))
            && text.chars().all(in_number))
}

#[cfg(test)]
mod tests {
    use duffy_config::Rendered;
    use serde_json::json;

    use super::*;

    fn text(text: &str, overridden: bool) -> RenderedVar {
        RenderedVar::Text(Rendered {
            text: text.to_owned(),
            overridden,
        })
    }

    #[test]
    fn only_what_comes_from_outside_is_marked() {
        let deep = RenderedVars::from([("k".to_owned(), text("{{ e }}", true))]);
        let configured = [
            ("a", text("{{ b }}", false)),
            ("c", RenderedVar::Plain(json!(["{{ d }}", 1.5, true]))),
            ("m", RenderedVar::Mapping(deep)),
            ("duffy_in", text("not this", false)),
        ];
        let configured = configured.map(|(name, var)| (name.to_owned(), var)).into();
        let outside =
            json!({"duffy_in": {"n\"\\\n": ["é{{", null, 7, "7"], "{{ k }}": 1, "{": {}}});
        let expected = concat!(
            "{? \"a\" : \"{{ b }}\",\n",
            "? \"c\" : [\"{{ d }}\",\n!!float \"1.5\",\ntrue,\n],\n",
            "? \"m\" : {? \"k\" : !unsafe \"{{ e }}\",\n},\n",
            "? \"duffy_in\" : {? !unsafe \"n\\\"\\\\\\U0000000A\" : ",
            "[!unsafe \"\\U000000E9{{\",\nnull,\n7,\n\"7\",\n],\n},\n}\n",
        );
        assert_eq!(to_yaml(&configured, outside.as_object().unwrap()), expected);
    }

    #[test]
    fn texts_that_yaml_reads_otherwise_are_known() {
        for text in [
            "",
            "\n",
            "~",
            "Null",
            "YES",
            "off\n",
            "=",
            "<<",
            "0",
            "-1_000",
            "0o17",
            "0x1F",
            "0b1",
            "1:30",
            "1.",
            "+.5e-3",
            "1:30.5",
            "-.INF",
            ".NaN",
            "2020-01-31",
            "2020-1-3 \t4:05:06.7 +01:30",
            "2020-01-31T00:00:00Z",
        ] {
            assert!(looks_like_other_kind(text), "{text:?}");
        }
        for text in [
            "node", "n1", "1{", "1()", "{{ a }}", "1 if a", "yes ", "a: b", "\n\n",
        ] {
            assert!(!looks_like_other_kind(text), "{text:?}");
        }
    }
}
