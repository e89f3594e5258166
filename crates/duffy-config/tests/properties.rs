//! Properties of any input.
use duffy_config::{load_text, render_template, yaml};
use proptest::prelude::*;
use serde_json::{Map, Value};

/// Text that is likely to be valid.
fn yamlish() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "app",
        "nodepools",
        "concrete",
        "abstract",
        "extends",
        "mechanism",
        "type",
        "ansible",
        "simulated",
        "tasks",
        "database",
        "sqlalchemy",
        "sync_url",
        "defaults",
        "client",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "? ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "&a ",
        "*a",
        "<<",
        "!!int ",
        "!!binary ",
        "!x ",
        "'",
        "\"",
        "|\n",
        ">-\n",
        "#",
        "---\n",
        "...\n",
        "0x",
        "1:30",
        "-",
        "~",
        "yes",
        "2024-01-01",
        "{{ name }}",
        "{% if",
        "\t",
        "\\",
        "é",
        "\u{feff}",
        "\u{0}",
        "%YAML 1.1\n",
        "postgresql://u:p@h/d",
        "sqlite:///x",
        "1e400",
        "9999999999999999999999",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn load(text: &str) {
    if let Err(error) = load_text(text, "duffy.yaml") {
        assert!(!error.to_string().is_empty());
    }
}

/// Any JSON, without numbers that are not exact floats.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no others", |number| number.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ a-z0-9:#'\"\n-]{0,100}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("[a-z :#\n]{0,8}", inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in any::<String>()) {
        load(&text);
    }

    #[test]
    fn no_yaml_makes_the_loader_panic(text in yamlish()) {
        load(&text);
    }

    #[test]
    fn no_template_makes_the_renderer_panic(text in "[{}%# a-c|.()'\"\\[\\]:0-9+*/~-]{0,40}") {
        let values: Map<String, Value> = [("a".to_owned(), Value::from("x-y"))].into_iter().collect();
        let _ = render_template(&text, &values);
    }

    #[test]
    fn what_is_printed_reads_back_the_same(value in json()) {
        let text = yaml::dump(&value);
        prop_assert_eq!(yaml::parse(&text, "test.yaml"), Ok(vec![value]), "{}", text);
    }
}
