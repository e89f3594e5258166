//! Compares templates with Jinja2.

mod python;

use serde_json::{Map, Value, json};

const RENDER: &str = r"
import jinja2, json, sys
values, templates = json.load(sys.stdin)
out = []
for text in templates:
    try:
        out.append({'ok': jinja2.Template(text).render(**values)})
    except Exception as exc:
        out.append({'error': type(exc).__name__ + ': ' + str(exc)})
json.dump(out, sys.stdout)
";

fn values() -> Map<String, Value> {
    let values = json!({
        "name": "virtual-centos9stream-x86_64-medium",
        "arch": "x86_64",
        "ver": "8-stream",
        "hostname": "n35.lab.test",
        "fill-level": 5,
        "one": 1,
        "zero": 0,
        "big": 18_446_744_073_709_551_615_u64,
        "negative": -7,
        "half": 0.5,
        "whole": 2.0,
        "huge": 1e16,
        "small": 1e-5,
        "yes": true,
        "no": false,
        "nothing": null,
        "empty": "",
        "spaces": "  a  b c  ",
        "quote": "it's",
        "both": "it's \"x\"",
        "multi": "one\ntwo\r\nthree\n",
        "accent": "Éclair ñandú",
        "list": [1, "two", 3.0, null, true],
        "numbers": [3, 1, 2],
        "words": ["pear", "apple", "fig"],
        "dict": {"b": 1, "a": "x", "nested": {"k": [1, {"z": null}]}},
        "duffy_in": {"nodes": [
            {"id": 1, "hostname": "a.test", "ipaddr": null, "data": {"arch": "x86_64"}},
            {"id": 2, "hostname": null, "ipaddr": "127.0.0.1", "data": {}},
        ]},
        "architecture": "aarch64",
        "html": "<b>&</b>",
    });
    let Value::Object(values) = values else {
        unreachable!()
    };
    values
}

/// Both render the same text, or both fail.
#[test]
fn templates_give_what_jinja2_gives() {
    let text = include_str!("data/templates.txt");
    let mut templates: Vec<String> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(ToOwned::to_owned)
        .collect();
    // Line breaks at the ends and inside.
    for odd in [
        "a\n",
        "a\n\n",
        "\na",
        "{{ name }}\n",
        "{% if yes %}\nx\n{% endif %}\n",
        "{%- if yes -%}\n x \n{%- endif -%}\n",
        "{# a\ncomment #}\nx",
        "{% for w in words %}{{ w }}\n{% endfor %}",
        "a\r\nb",
        "{{\n name\n}}",
        "{% set x = 1\n%}{{ x }}",
        "{% raw %}{{ name }}{% endraw %}",
        "{% set x %}block{% endset %}{{ x }}",
        "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}",
        "{{ 'a\\nb' }}",
        "",
        " ",
    ] {
        templates.push(odd.to_owned());
    }
    let known: Vec<&str> = include_str!("data/templates-that-differ.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    templates.extend(known.iter().map(|line| (*line).to_owned()));
    let values = values();
    let answers = python::ask(RENDER, &json!([values, templates]));
    let mut differences = Vec::new();
    for (template, theirs) in templates.iter().zip(answers.as_array().unwrap()) {
        let ours = duffy_config::render_template(template, &values);
        let same = match (&ours, theirs["ok"].as_str()) {
            (Ok(ours), Some(theirs)) => ours == theirs,
            (Err(_), None) => true,
            _ => false,
        };
        if same == known.contains(&template.as_str()) {
            differences.push(format!(
                "{template}\n  ours:   {ours:?}\n  theirs: {theirs}"
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        templates.len(),
        differences.join("\n")
    );
}
