//! Reads bodies that were sent to the original, and compares the outcome with the original's.

use duffy_api::{ApiKeyUpdate, FieldError, NodeCreate, SessionCreate, TenantCreate, TenantUpdate};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::http::error::ApiError;
use crate::lifecycle::rules::NewExpiry;
use crate::lifecycle::sessions::SessionChange;

#[derive(Debug)]
enum Outcome {
    Value(#[expect(dead_code, reason = "shown when a test fails")] String),
    Errors(Vec<FieldError>),
    Unreadable,
}

fn outcome<T: Form + std::fmt::Debug>(body: &[u8], content_type: Option<&str>) -> Outcome {
    let body = match read_body(content_type, body) {
        Ok(body) => body,
        Err(ApiError::Invalid(errors)) => return Outcome::Errors(errors),
        Err(_) => return Outcome::Unreadable,
    };
    match T::from_body(&body) {
        Ok(value) => Outcome::Value(format!("{value:?}")),
        Err(errors) => Outcome::Errors(errors.into_fields()),
    }
}

const READERS: [&str; 5] = [
    "session_create",
    "session_change",
    "tenant_create",
    "tenant_change",
    "node_create",
];

fn run(reader: &str, body: &[u8], content_type: Option<&str>) -> Outcome {
    match reader {
        "session_create" => outcome::<SessionCreate>(body, content_type),
        "session_change" => outcome::<SessionChange>(body, content_type),
        "tenant_create" => outcome::<TenantCreate>(body, content_type),
        "tenant_change" => outcome::<TenantChange>(body, content_type),
        "node_create" => outcome::<NodeCreate>(body, content_type),
        other => panic!("no reader {other}"),
    }
}

/// Compares type, path and message of each error. A message that is `null` is not compared.
fn same_errors(expected: &Value, found: &[FieldError]) -> bool {
    let expected = expected.as_array().unwrap();
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| {
            expected[0] == json!(found.kind)
                && expected[1] == json!(found.loc)
                && (expected[2].is_null() || expected[2] == json!(found.msg))
        })
}

#[test]
fn every_body_is_judged_as_the_original_judges_it() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cases.json")).unwrap();
    assert!(cases.len() > 300);
    let mut wrong = Vec::new();
    for case in &cases {
        let body = match case.get("bytes") {
            Some(bytes) => serde_json::from_value(bytes.clone()).unwrap(),
            None => case["body"].as_str().unwrap().as_bytes().to_vec(),
        };
        let content_type = match case.get("content_type") {
            None => Some("application/json"),
            Some(given) => given.as_str(),
        };
        let found = run(case["reader"].as_str().unwrap(), &body, content_type);
        // "ours" is there where the original fails, or accepts what cannot work.
        let expected = case.get("ours").unwrap_or(&case["original"]);
        let same = match &found {
            Outcome::Value(_) => expected == "valid",
            Outcome::Unreadable => expected == "unreadable",
            Outcome::Errors(errors) => expected.is_array() && same_errors(expected, errors),
        };
        if !same {
            wrong.push(format!("{case}\n  gave {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn read<T: Form>(body: &Value) -> T {
    let body = read_body(None, body.to_string().as_bytes()).unwrap();
    T::from_body(&body).unwrap()
}

#[test]
fn session_requests_are_read() {
    let create: SessionCreate =
        read(&json!({"tenant_id": "2", "nodes_specs": [{"pool": "p", "quantity": "3"}], "x": 1}));
    assert_eq!(create.tenant_id, Some(2));
    assert_eq!(create.nodes_specs[0].quantity, 3);
    assert_eq!(create.nodes_specs[0].pool, "p");
    let huge = json!({"tenant_id": 1e18, "nodes_specs": []});
    assert_eq!(
        read::<SessionCreate>(&huge).tenant_id,
        Some(1_000_000_000_000_000_000)
    );
}

#[test]
fn expiries_are_read() {
    let expiry = |text: &str| read::<SessionChange>(&json!({"expires_at": text})).expires_at;
    let at = |text: &str| Some(NewExpiry::At(text.parse().unwrap()));
    for (text, expected) in [
        ("2030-01-02T03:04:05Z", "2030-01-02T03:04:05Z"),
        ("2030-01-02T03:04:05", "2030-01-02T03:04:05Z"),
        ("2030-01-02 03:04", "2030-01-02T03:04:00Z"),
        ("2030-01-02", "2030-01-02T00:00:00Z"),
        (
            "2030-01-02T03:04:05.1234567Z",
            "2030-01-02T03:04:05.123456Z",
        ),
        ("2030-01-02T03:04:05,5Z", "2030-01-02T03:04:05.5Z"),
        // The original forgets the offset.
        ("2030-01-02T03:04:05+02:00", "2030-01-02T01:04:05Z"),
        ("2030-01-02T03:04:05\u{2212}0230", "2030-01-02T05:34:05Z"),
        ("3600", "1970-01-01T01:00:00Z"),
        ("-1.5", "1969-12-31T23:59:58.5Z"),
        (".5", "1970-01-01T00:00:00.5Z"),
        ("20000000000", "2603-10-11T11:33:20Z"),
        ("20000000001", "1970-08-20T11:33:20.001Z"),
        ("1600000000000.123", "2020-09-13T12:26:40.000123Z"),
    ] {
        assert_eq!(expiry(text), at(expected), "{text}");
    }
    let by = |seconds| Some(NewExpiry::By(chrono::TimeDelta::seconds(seconds)));
    assert_eq!(expiry("+1h"), by(3600));
    assert_eq!(expiry(" -30M "), by(-1800));
    let nothing: SessionChange = read(&json!({"active": null, "expires_at": null}));
    assert_eq!(nothing, SessionChange::default());
}

#[test]
fn years_that_cannot_be_written_are_refused() {
    for text in [
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+12:00",
        "999999999999999",
        "99999999999999999999999999999999",
    ] {
        let body = json!({"expires_at": text}).to_string();
        let found = run("session_change", body.as_bytes(), None);
        assert!(matches!(found, Outcome::Errors(_)), "{text}: {found:?}");
    }
}

#[test]
fn tenant_changes_are_read() {
    let change = |body: Value| read::<TenantChange>(&body);
    let update = |update| TenantChange::Update(update);
    assert_eq!(
        change(json!({"active": false})),
        TenantChange::SetActive(false)
    );
    assert_eq!(
        change(json!({"api_key": "reset", "node_quota": null})),
        update(TenantUpdate {
            api_key: Some(ApiKeyUpdate::Reset),
            node_quota: Some(None),
            ..TenantUpdate::default()
        })
    );
    assert_eq!(
        change(json!({"api_key": "{11111111-2222-4333-8444-555555555555}"})),
        update(TenantUpdate {
            api_key: Some(ApiKeyUpdate::Set(
                "11111111-2222-4333-8444-555555555555".into()
            )),
            ..TenantUpdate::default()
        })
    );
    for nothing in [
        json!({"ssh_key": null}),
        json!({"ssh_key": ""}),
        json!({"api_key": null}),
    ] {
        assert_eq!(change(nothing), update(TenantUpdate::default()));
    }
}

/// Bodies that fit both forms, and the form that the original reads.
#[test]
fn a_body_of_both_forms_is_one_of_them() {
    let key = "11111111-2222-4333-8444-555555555555";
    for (body, retires) in [
        (json!({"active": false, "node_quota": 5}), false),
        (json!({"active": false, "node_quota": "5"}), true),
        (json!({"active": false, "node_quota": 5.0}), true),
        (json!({"active": false, "node_quota": 0}), true),
        (json!({"active": "no", "node_quota": "5"}), false),
        (
            json!({"active": false, "node_quota": "5", "ssh_key": "x"}),
            false,
        ),
        (json!({"active": false, "ssh_key": "x"}), false),
        (json!({"active": false, "api_key": "reset"}), false),
        (json!({"active": false, "api_key": key}), true),
        (json!({"active": "no", "api_key": key}), false),
        (json!({"active": false, "session_lifetime": "5h"}), false),
    ] {
        let found = read::<TenantChange>(&body);
        assert_eq!(
            matches!(found, TenantChange::SetActive(_)),
            retires,
            "{body}"
        );
    }
}

#[test]
fn nodes_are_read() {
    let node = |address: Value| -> String {
        read::<NodeCreate>(&json!({"hostname": "h", "ipaddr": address})).ipaddr
    };
    assert_eq!(node(json!("FE80::0:1")), "fe80::1");
    assert_eq!(node(json!("::1%eth0")), "::1%eth0");
    assert_eq!(node(json!(1)), "0.0.0.1");
    assert_eq!(node(json!(4_294_967_296_u64)), "::1:0:0");
    let full: NodeCreate = read(
        &json!({"hostname": "h", "ipaddr": "1.2.3.4", "comment": "c", "pool": "p",
            "reusable": "off", "data": {"b": [1, 2.5, null], "a": {}}}),
    );
    assert_eq!(full.comment.as_deref(), Some("c"));
    assert!(!full.reusable);
    assert_eq!(
        Value::Object(full.data).to_string(),
        r#"{"b":[1,2.5,null],"a":{}}"#
    );
}

#[test]
fn numbers_of_rows_in_the_path() {
    let id = |text: &str| path_id(text).map_err(Errors::into_fields);
    for (text, expected) in [
        ("1", Some(1)),
        (" 1", Some(1)),
        ("+1_0", Some(10)),
        ("1.0", Some(1)),
        ("-1", Some(-1)),
        ("99999999999999999999", None),
        ("-999999999999999999999999999999999999999999999999", None),
    ] {
        assert_eq!(id(text), Ok(expected), "{text:?}");
    }
    for text in ["abc", "", "1.5", "1e3", "\0", "a b", "\u{966}"] {
        let errors = id(text).unwrap_err();
        assert_eq!(errors[0].kind, "int_parsing", "{text:?}");
        assert_eq!(json!(errors[0].loc), json!(["path", "id"]));
    }
}

#[test]
fn figures_stand_in_ctx_and_input() {
    let body = json!({"name": 1, "ssh_key": "k", "node_quota": -1}).to_string();
    let Outcome::Errors(errors) = run("tenant_create", body.as_bytes(), None) else {
        panic!("taken");
    };
    insta::assert_json_snapshot!(errors, @r#"
    [
      {
        "type": "string_type",
        "loc": [
          "body",
          "name"
        ],
        "msg": "Input should be a valid string",
        "input": 1
      },
      {
        "type": "greater_than",
        "loc": [
          "body",
          "node_quota"
        ],
        "msg": "Input should be greater than 0",
        "input": -1,
        "ctx": {
          "gt": 0
        }
      }
    ]
    "#);
}

#[test]
fn replies_stay_small_however_long_the_list() {
    let body = format!("{{\"nodes_specs\":[{}1]}}", "{},".repeat(300_000));
    let Outcome::Errors(errors) = run("session_create", body.as_bytes(), None) else {
        panic!("taken");
    };
    assert_eq!(errors.len(), 1000);
}

#[test]
fn replies_stay_small_however_long_the_names() {
    let values = "NaN,".repeat(1000);
    let half = "x".repeat(500_000);
    let nested = format!("{{\"{}\":", "y".repeat(900)).repeat(500);
    for (name, ends) in [(format!("{{\"{half}\":"), 1), (nested, 500)] {
        let ends = "}".repeat(ends);
        let body = format!("{{\"hostname\":\"h\",\"data\":{name}[{values}1]{ends}}}");
        let Outcome::Errors(errors) = run("node_create", body.as_bytes(), None) else {
            panic!("taken");
        };
        assert!(!errors.is_empty());
        let length = serde_json::to_string(&errors).unwrap().len();
        assert!(length < 2_000_000, "{length} bytes");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[-+0-9TZ:. hdw]{0,25}".prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(Value::from("reset")),
    ];
    let names = prop_oneof![
        prop::sample::select(vec![
            "nodes_specs",
            "tenant_id",
            "quantity",
            "pool",
            "active",
            "expires_at",
            "name",
            "is_admin",
            "ssh_key",
            "api_key",
            "node_quota",
            "session_lifetime",
            "session_lifetime_max",
            "hostname",
            "ipaddr",
            "comment",
            "reusable",
            "data",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,3}".prop_map(String::from),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Each body gives a value or errors.
    #[test]
    fn any_body_gives_a_value_or_errors(body in any_json()) {
        for reader in READERS {
            if let Outcome::Errors(errors) = run(reader, body.to_string().as_bytes(), None) {
                prop_assert!(!errors.is_empty());
                prop_assert!(errors.iter().all(|error| !error.loc.is_empty()));
            }
        }
    }

    #[test]
    fn any_bytes_give_a_value_or_errors(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        content_type in prop::option::of("\\PC{0,20}"),
    ) {
        for reader in READERS {
            run(reader, &bytes, content_type.as_deref());
        }
    }

    #[test]
    fn anything_like_json_is_read_or_refused(text in r#"[\[\]{}",:0-9eE.\\ualtrufsn\-+NI \n]{0,40}"#) {
        let ours = json::parse(&text);
        // What the strict parser accepts, ours accepts with the same value.
        if let Ok(strict) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(Value::from(&ours.unwrap()), strict);
        }
    }

    #[test]
    fn written_json_is_read_back(value in any_json()) {
        prop_assert_eq!(Value::from(&json::parse(&value.to_string()).unwrap()), value);
    }

    #[test]
    fn any_text_as_an_expiry(text in "[-+0-9TZtz_:., hmsdw\u{2212}]{0,32}") {
        run("session_change", json!({"expires_at": text}).to_string().as_bytes(), None);
    }
}
