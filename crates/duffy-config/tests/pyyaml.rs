//! Compares the YAML reader and printer with PyYAML.
#![expect(
    clippy::unwrap_used,
    reason = "also outside test functions: panics are a test's way to fail"
)]

mod python;

use serde_json::{Value, json};

/// Reads each text. Floats are compared bit for bit, and types that JSON lacks are converted as documented.
const LOAD: &str = r#"
import datetime, json, struct, sys, yaml

def key(k):
    if isinstance(k, str): return k
    if isinstance(k, (bytes, tuple)): raise ValueError("key")
    if isinstance(k, (datetime.date, datetime.datetime)): return str(k)
    return json.loads(json.dumps({k: 0}).split(":")[0].strip("{") ) if not isinstance(k, float) else repr(k)

def plain(x):
    if x is None or isinstance(x, (bool, str)): return x
    if isinstance(x, int):
        if not -2**63 <= x < 2**64: raise ValueError("too large")
        return x
    if isinstance(x, float):
        if x != x or x in (float("inf"), float("-inf")): return repr(x)
        return {"float": struct.pack(">d", x).hex()}
    if isinstance(x, bytes): return x.decode()
    if isinstance(x, (datetime.date, datetime.datetime)): return str(x)
    if isinstance(x, dict): return {key(k): plain(v) for k, v in x.items()}
    if isinstance(x, set): return sorted(key(k) for k in x)
    return [plain(v) for v in x]

out = []
for text in json.load(sys.stdin):
    try:
        out.append({"ok": [plain(d) for d in yaml.safe_load_all(text)]})
    except Exception as exc:
        out.append({"error": type(exc).__name__ + ": " + " ".join(str(exc).split())[:200]})
json.dump(out, sys.stdout)
"#;

const DUMP: &str = r"
import json, sys, yaml
json.dump([yaml.safe_dump(x, default_flow_style=False) for x in json.load(sys.stdin)], sys.stdout)
";

/// Converts our values to the form of the script's output.
fn mark_floats(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            json!({"float": format!("{:016x}", number.as_f64().unwrap().to_bits())})
        }
        Value::Array(items) => items.into_iter().map(mark_floats).collect(),
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, mark_floats(value)))
                .collect(),
        ),
        other => other,
    }
}

fn compare(texts: &[String]) {
    let answers = python::ask(LOAD, &json!(texts));
    let mut differences = Vec::new();
    for (text, theirs) in texts.iter().zip(answers.as_array().unwrap()) {
        let ours = duffy_config::yaml::parse(text, "test.yaml");
        let same = match (&ours, theirs.get("ok")) {
            (Ok(documents), Some(expected)) => {
                mark_floats(Value::Array(documents.clone())) == *expected
            }
            (Err(_), None) => true,
            _ => false,
        };
        if same == KNOWN_DIFFERENCES.contains(&text.as_str()) {
            differences.push(format!("{text:?}\n  ours:   {ours:?}\n  theirs: {theirs}"));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} texts differ:\n{}",
        differences.len(),
        texts.len(),
        differences.join("\n")
    );
}

/// Our reader follows YAML 1.2 where PyYAML refuses a text or reads it differently: an empty or odd key, and `-`, `?` and
/// `:` inside brackets. Numbers beyond 64 bits are refused as keys, as they are as values. No real configuration contains
/// these.
const KNOWN_DIFFERENCES: [&str; 16] = [
    "{: 1}\n",
    ": 1\n",
    "- : 1\n",
    "[-]\n",
    "[?x]\n",
    "{?x: 1}\n",
    "[:x]\n",
    "{:x: 1}\n",
    "[::]\n",
    "{::: 1}\n",
    "[::1]\n",
    "{::1: 1}\n",
    "{-9223372036854775809: 1}\n",
    "-9223372036854775809: 1\n",
    "{18446744073709551616: 1}\n",
    "18446744073709551616: 1\n",
];

const SCALARS: &str = include_str!("data/scalars.txt");

/// Each scalar of the corpus in every position.
#[test]
fn scalars_are_read_as_pyyaml_reads_them() {
    let mut texts = Vec::new();
    for scalar in SCALARS.lines() {
        texts.push(format!("{scalar}\n"));
        texts.push(format!("key: {scalar}\n"));
        texts.push(format!("- {scalar}\n"));
        texts.push(format!("[{scalar}]\n"));
        texts.push(format!("{{{scalar}: 1}}\n"));
        texts.push(format!("{scalar}: 1\n"));
        texts.push(format!("! {scalar}\n"));
        texts.push(format!("!!str {scalar}\n"));
    }
    compare(&texts);
}

#[test]
fn generated_scalars_are_read_as_pyyaml_reads_them() {
    let mut texts = Vec::new();
    let signs = ["", "-", "+"];
    let wholes = [
        "0", "1", "7", "8", "00", "07", "08", "010", "1_0", "_1", "1_", "0_7", "0x", "0xf", "0b1",
        "0b2", "0o7", "1:2", "1:60", "01:2", "1:2:3", "12:59:59", "",
    ];
    let fractions = [
        "", ".", ".0", ".5", "._", "._5", ".5_", ".5:1", ".inf", ".nan", ".e+1",
    ];
    let exponents = ["", "e1", "e+1", "E-2", "e+", "e+1_0"];
    for sign in signs {
        for whole in wholes {
            for fraction in fractions {
                for exponent in exponents {
                    texts.push(format!("k: {sign}{whole}{fraction}{exponent}\n"));
                }
            }
        }
    }
    for word in [
        "yes", "no", "true", "false", "on", "off", "null", "y", "n", "none", ".inf", ".nan", "nan",
        "inf",
    ] {
        let mut capital = word.to_owned();
        capital[..1].make_ascii_uppercase();
        let mut mixed = word.to_owned();
        mixed[word.len() - 1..].make_ascii_uppercase();
        for form in [word.to_owned(), word.to_uppercase(), capital, mixed] {
            texts.push(format!("k: {form}\n"));
            texts.push(format!("{form}: k\n"));
        }
    }
    for date in [
        "2024-02-29",
        "2023-02-29",
        "2024-2-3",
        "0000-01-01",
        "2024-13-01",
        "2024-01-32",
        "9999-12-31",
    ] {
        for time in [
            "",
            "T1:02:03",
            " 23:59:60",
            "t01:02:03.5",
            " 01:02:03.1234567",
            "  1:02:03.",
            " 1:2:03",
            "T24:00:00",
        ] {
            for zone in [
                "", "Z", " Z", "z", "+1", " -01:30", "+25:00", "-0:00", "+0100", " +23:59", " 5",
            ] {
                texts.push(format!("k: {date}{time}{zone}\n"));
            }
        }
    }
    compare(&texts);
}

#[test]
fn tagged_scalars_are_read_as_pyyaml_reads_them() {
    let mut texts = Vec::new();
    let tags = [
        "!!str",
        "!!int",
        "!!float",
        "!!bool",
        "!!null",
        "!!timestamp",
        "!!binary",
        "!!seq",
        "!!map",
        "!!set",
        "!!omap",
        "!!pairs",
        "!!python/none",
        "!local",
        "!",
        "!<tag:yaml.org,2002:int>",
    ];
    let values = [
        "12",
        "'12'",
        "\"0x1f\"",
        "1e3",
        "yes",
        "maybe",
        "",
        "abc",
        "2024-01-02",
        "c2VjcmV0",
        "c2Vj cmV0",
        "[1, 2]",
        "{a: 1}",
        "[{a: 1}, {b: 2}]",
        "{a, b}",
        "1.5",
        "-+x",
        "+0b11",
        "1:30",
        "nan",
        "[[a, b]]",
    ];
    for tag in tags {
        for value in values {
            texts.push(format!("k: {tag} {value}\n"));
        }
    }
    compare(&texts);
}

#[test]
fn documents_are_read_as_pyyaml_reads_them() {
    let texts: Vec<String> = include_str!("data/documents.txt")
        .split("=====\n")
        .map(ToOwned::to_owned)
        .collect();
    assert!(texts.len() > 40);
    let mut texts = texts;
    texts.push(include_str!("../../../etc/duffy-example-config.yaml").to_owned());
    compare(&texts);
}

/// Texts and keys with every character that affects the style.
fn odd_texts() -> Vec<String> {
    let mut texts: Vec<String> = SCALARS.lines().map(ToOwned::to_owned).collect();
    let pieces = [
        "",
        " ",
        "a",
        "a b",
        "'",
        "\"",
        "\n",
        "\n\n",
        "\t",
        ":",
        ": ",
        " #",
        "#",
        "-",
        "- ",
        "?",
        "? ",
        "---",
        "...",
        "é",
        "\u{1f600}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{0}",
        "\u{7f}",
        "\\",
        "%",
        "@",
        "`",
        "!",
        "&",
        "*",
        "|",
        ">",
        "[",
        "]",
        "{",
        "}",
        ",",
        "=",
        "<<",
        "~",
        "0",
    ];
    for first in pieces {
        for second in pieces {
            texts.push(format!("{first}{second}"));
            texts.push(format!("x{first}{second}y"));
            texts.push(format!("{first}x{second}"));
        }
    }
    for length in [60, 75, 78, 79, 80, 81, 82, 127, 128, 200] {
        for word in [
            "a",
            "ab c",
            "a  b",
            "it's a ",
            "é a ",
            "\" b",
            "line\n",
            "line\n next ",
            "a \\ b",
            "a\ttab ",
            ": ",
            " '",
        ] {
            texts.push(word.repeat(length / word.chars().count() + 1));
            texts.push(format!("{}end", word.repeat(length / word.chars().count())));
        }
    }
    texts
}

#[test]
fn yaml_is_printed_as_pyyaml_prints_it() {
    let mut values = Vec::new();
    for text in odd_texts() {
        values.push(json!(text));
        values.push(json!({"key": text}));
        values.push(json!([text]));
        values.push(json!({text.clone(): 1}));
        values.push(json!({text.clone(): [text], "deep": {"deeper": [[{"x": text}], text]}}));
    }
    values.extend([
        json!(null),
        json!(true),
        json!(0),
        json!(-5),
        json!(u64::MAX),
        json!(1.0),
        json!(1e16),
        json!(1.5e300),
        json!(1e-7),
        json!(0.1),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"a": {}, "b": []}),
        json!([[1, [2]], {"a": [1, {"b": 2}]}]),
        json!({"b": 1, "a": 2, "B": 3, "é": 4}),
        json!({"x": [{"a": 1, "b": [1, 2]}, {}]}),
        json!({"a": {"b": {"c": null}}}),
    ]);
    let example = include_str!("../../../etc/duffy-example-config.yaml");
    values.extend(duffy_config::yaml::parse(example, "example").unwrap());
    let answers = python::ask(DUMP, &json!(values));
    let mut differences = Vec::new();
    for (value, theirs) in values.iter().zip(answers.as_array().unwrap()) {
        let ours = duffy_config::yaml::dump(value);
        if ours != theirs.as_str().unwrap() {
            differences.push(format!("{value}\n  ours:   {ours:?}\n  theirs: {theirs}"));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} values differ:\n{}",
        differences.len(),
        values.len(),
        differences.join("\n")
    );
}

/// Our reader accepts these texts, which PyYAML refuses, so that earlier files stay valid.
#[test]
fn ours_reads_some_texts_that_pyyaml_refuses() {
    let texts = ["\ta: 1\n", "a:\t1\n", "a: &x 1\nb: &x 1\n"];
    let answers = python::ask(LOAD, &json!(texts));
    for (text, theirs) in texts.iter().zip(answers.as_array().unwrap()) {
        assert!(
            theirs.get("error").is_some(),
            "{text:?}: PyYAML reads this: {theirs}"
        );
        let ours = duffy_config::yaml::parse(text, "test.yaml").unwrap();
        assert_eq!(ours[0]["a"], 1, "{text:?}");
    }
}
