//! Compares `poolmap` and `mangle_hostname` with the Python original.
#![expect(
    clippy::unwrap_used,
    reason = "also outside test functions: panics are a test's way to fail"
)]

mod python;

use duffy_config::{Config, Metaclient, PoolRequest, load_files};
use serde_json::{Value, json};

const ASK: &str = r"
import json, sys
from duffy.configuration import config
from duffy.legacy.main import lookup_pool_from_map, mangle_hostname
cases, names = json.load(sys.stdin)
def attempt(call, *args, **kwargs):
    try:
        return {'ok': call(*args, **kwargs)}
    except Exception as exc:
        return {'error': type(exc).__name__}
pools, hosts = [], []
for poolmap, requests in cases:
    config['metaclient'] = {'poolmap': poolmap}
    pools.append([attempt(lookup_pool_from_map, **request) for request in requests])
for template, hostnames in names:
    config['metaclient'] = {'mangle_hostname': template}
    hosts.append([attempt(mangle_hostname, name) for name in hostnames])
json.dump([pools, hosts], sys.stdout)
";

fn load(section: &Value) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("duffy.yaml");
    std::fs::write(&path, json!({ "metaclient": section }).to_string()).unwrap();
    load_files(&[path]).map_err(|error| error.to_string())
}

fn metaclient(poolmap: &Value, mangle_hostname: &Value) -> Metaclient {
    let section =
        json!({"usermap": {"k": "u"}, "poolmap": poolmap, "mangle_hostname": mangle_hostname});
    load(&section).unwrap().metaclient.unwrap()
}

/// Returns a `poolmap` of one entry with a selector, and requests with these values.
fn selector(pattern: &str, values: &[&str]) -> (Value, Vec<Value>) {
    let requests = values
        .iter()
        .map(|value| json!({"ver": value, "arch": "x"}));
    (
        json!([{"ver": pattern, "pool": "p-{{ ver }}"}]),
        requests.collect(),
    )
}

/// Poolmaps with requests.
fn cases() -> Vec<(Value, Vec<Value>)> {
    let site = json!([
        {"arch": "^(aarch64|ppc64|ppc64le)$",
         "pool": "virtual-centos{{ ver | replace('-', '') }}-{{ arch }}-{{ flavor | default('medium') }}"},
        {"ver": "9-stream", "arch": "x86_64", "flavor": "small", "pool": "small"},
        {"ver": "^[89]-stream$", "arch": "x86_64", "flavor": "^(?:lram|xram)\\.(tiny|small)$",
         "pool": "virtual-{{ flavor.split('.')[0] }}-{{ flavor.split('.')[1] }}"},
        {"arch": "x86_64", "pool": "physical-centos{{ ver | replace('-', '') }}-{{ arch }}"},
        {"flavor": "bad", "pool": "{{ ver.a.b }}"},
        {"flavor": "none", "pool": "{{ nothing }}"},
    ]);
    let mut requests = vec![json!({}), json!({"ver": ""}), json!({"arch": null})];
    for arch in [
        "x86_64",
        "aarch64",
        "ppc64",
        "ppc64le",
        "s390x",
        "",
        "aarch64\n",
        "xaarch64",
    ] {
        for flavor in [
            "small",
            "medium",
            "lram.tiny",
            "xram.large",
            "bad",
            "none",
            "",
            "-",
        ] {
            for ver in ["7", "8-stream", "9-stream", "{{ arch }}"] {
                let flavor = if flavor == "-" {
                    json!(null)
                } else {
                    json!(flavor)
                };
                requests.push(json!({"ver": ver, "arch": arch, "flavor": flavor}));
            }
        }
    }
    let mut cases = vec![
        (site, requests),
        (json!([]), vec![json!({"ver": "7"})]),
        (
            json!([{"pool": "", "ver": "7"}, {"pool": "next"}, {"pool": "never"}]),
            vec![json!({"ver": "7"}), json!({})],
        ),
        (
            json!([{"pool": "{% if flavor %}a{% else %}b{% endif %}{{ flavor }}", "ver": "", "flavor": ""}]),
            vec![json!({}), json!({"flavor": ""}), json!({"flavor": "x"})],
        ),
    ];
    let versions = [
        "7",
        "8",
        "9",
        "10",
        "8-stream",
        "9-stream",
        "9-Stream",
        "",
        "7\n",
        "\n",
        "7 ",
        "a",
        "b",
        "ab",
        "aab",
        "aarch64",
        "xppc64le",
        "ppc64le",
        "aarch64_be",
        "a{x}",
        "a{2}",
        "a[b",
        "a]b",
        "a&b",
        "a~b",
        "a&&b",
        "é",
        "٣",
        "a-b",
        "a.b",
        "]",
        "stream-stream",
        "8-8",
        "a{,2}",
        "aa",
        "aaa",
        "\u{8}",
        "_",
        "a\nb",
        "x86_64",
    ];
    for pattern in [
        "^7$",
        "^[89]$",
        "^[89](-stream)?$",
        "^\\d+$",
        "^\\d{1,2}$",
        "^[0-9]+-stream$",
        "^$",
        "^.*$",
        "^.+$",
        "^.$",
        // Syntax that Rust's regex crate lacks or interprets differently.
        "^(?!7).*$",
        "^(?=.*stream).*$",
        "^.*(?<!stream)$",
        "^(?P<one>a)(?P=one)b$",
        "^(.+)-\\1$",
        "^a{,2}$",
        "^a{x}$",
        "^a{2}$",
        "^a{2,}$",
        "^a{,}$",
        "^a[[]b$",
        "^a[]]b$",
        "^a[&&]b$",
        "^a[b&&&]b$",
        "^a[~]b$",
        "^[]a]+$",
        "^[^]a]+$",
        "^aarch64|ppc64le$",
        "^a|b$",
        "^7\\Z$",
        "^(a$|b$)$",
        "^[\\b]$",
        "^\\w+$",
        "^\\W$",
        "^[\\w.-]+$",
        "^[\\d\\-]+$",
        "^(?i:9-stream)$",
        "^(?#a comment)7$",
        "^(?s:a.b)$",
        "^(?m:a$.*)$",
        "^a(?:b)?+$",
        "^(?>a+)b$",
        "^\\u00e9$",
        "^\\x37$",
        "^[^-]+$",
        "^(?:[789]|10)(?:-stream)?$",
        "^a\\{x\\}$",
        "^a}?$",
        "^(7|8)?$",
        "^x86_64$",
        "^(a)?(?(1)b|7)$",
        "^ 7$",
    ] {
        cases.push(selector(pattern, &versions));
    }
    // Not between ^ and $: plain texts.
    for text in ["^7", "7$", "a.b", ".*", "7", "x86_64", "(", "$^"] {
        cases.push(selector(text, &versions));
    }
    cases
}

fn ours(result: Result<Option<String>, duffy_config::TemplateError>) -> Value {
    result.map_or_else(|_| json!("error"), |text| json!({ "ok": text }))
}

fn theirs(answer: &Value) -> Value {
    if answer.get("error").is_some() {
        json!("error")
    } else {
        answer.clone()
    }
}

#[test]
fn poolmaps_choose_what_the_original_chooses() {
    let cases = cases();
    let names = [
        (json!(null), json!(["n1.lab.test", "", null])),
        (json!(""), json!(["n1.lab.test", null])),
        (
            json!("{{ hostname | replace('.lab.test', '') }}"),
            json!(["n1.lab.test", "n1", "", null]),
        ),
        (
            json!("{{ hostname.split('.')[0] }}.public"),
            json!(["n1.lab.test", null]),
        ),
        (
            json!("{{ hostname or 'unknown' }}\n"),
            json!(["n1", "", null]),
        ),
        (json!("{{ hostname.a.b }}"), json!(["n1"])),
    ];
    let answer = python::ask(ASK, &json!([cases, names]));
    let mut differences = Vec::new();
    let mut compare = |what: String, ours: Value, theirs: Value| {
        if ours != theirs {
            differences.push(format!("{what}\n  ours:   {ours}\n  theirs: {theirs}"));
        }
    };
    for ((poolmap, requests), answers) in cases.iter().zip(answer[0].as_array().unwrap()) {
        let metaclient = metaclient(poolmap, &json!(null));
        for (request, answer) in requests.iter().zip(answers.as_array().unwrap()) {
            let request_ = PoolRequest {
                ver: request["ver"].as_str(),
                arch: request["arch"].as_str(),
                flavor: request["flavor"].as_str(),
            };
            let ours = ours(metaclient.pool_for(&request_));
            compare(format!("{poolmap} for {request}"), ours, theirs(answer));
        }
    }
    for ((template, hostnames), answers) in names.iter().zip(answer[1].as_array().unwrap()) {
        let metaclient = metaclient(&json!([]), template);
        for (name, answer) in hostnames
            .as_array()
            .unwrap()
            .iter()
            .zip(answers.as_array().unwrap())
        {
            let ours = ours(metaclient.mangled(name.as_str()));
            compare(format!("{template} of {name}"), ours, theirs(answer));
        }
    }
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn a_wrong_expression_is_told_with_its_place() {
    let section =
        json!({"usermap": {"k": "u"}, "poolmap": [{"pool": "p"}, {"pool": "p", "arch": "^(x86$"}]});
    let error = load(&section).unwrap_err();
    let (place, message) = error.split_once(": ").unwrap();
    assert!(place.ends_with("duffy.yaml:1"), "{error}");
    assert!(
        message.starts_with(
            "metaclient.poolmap[1].arch: \"^(x86$\" is not a supported regular expression"
        ),
        "{error}"
    );
    assert!(!message.contains('\n'), "{error}");
}
