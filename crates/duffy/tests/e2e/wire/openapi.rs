//! Compares the API description with the one of the original (`data/wire/openapi.json`).

use std::fs;

use serde_json::Value;

use super::{Engine, WireSite, data};
use crate::support::http;

/// The operations that the original does not have.
const ADDITIONS: [&str; 2] = [
    "GET /api/v1/nodes/{id}/events",
    "GET /api/v1/sessions/{id}/events",
];

#[test]
fn the_description_covers_the_original() {
    let facts: Value =
        serde_json::from_slice(&fs::read(data("wire/openapi.json")).unwrap()).unwrap();
    let site = WireSite::new(Engine::Sqlite);
    let (_server, url) = site.serve();
    let ours = http("GET", &format!("{url}/openapi.json"), None, None).unwrap();
    let ours = ours.json;

    let operations = facts["operations"].as_object().unwrap();
    assert!(operations.len() > 10);
    for (line, fact) in operations {
        let (method, path) = line.split_once(' ').unwrap();
        let operation = &ours["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{line} is missing");
        assert_eq!(operation["tags"][0], fact["group"], "{line}");
        assert_eq!(operation["operationId"], fact["operation_id"], "{line}");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        // Optional headers do not affect clients of the original.
        let optional =
            |parameter: &&Value| parameter["in"] == "header" && parameter["required"] != true;
        let parameters: Vec<_> = parameters
            .filter(|parameter| !optional(parameter))
            .map(|parameter| format!("{} {}", text(&parameter["in"]), text(&parameter["name"])))
            .collect();
        assert_eq!(parameters, texts(&fact["parameters"]), "{line}");
        let body = schemas_of(&operation["requestBody"], &ours);
        assert_eq!(body, texts(&fact["body"]), "{line}: body");
        for (status, schema) in fact["success"].as_object().unwrap() {
            let reply = schemas_of(&operation["responses"][status], &ours);
            assert_eq!(reply, [text(schema)], "{line}: {status}");
        }
        let authentication = operation["security"].is_array();
        assert_eq!(authentication, fact["authentication"], "{line}");
    }
    let lacking: Vec<String> = ours["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .filter(|line| !operations.contains_key(line))
        .collect();
    assert_eq!(lacking, ADDITIONS, "operations that the original lacks");

    for (name, fact) in facts["schemas"].as_object().unwrap() {
        let schema = &ours["components"]["schemas"][name];
        assert!(schema.is_object(), "{name} is missing");
        let has: Vec<&String> = schema["properties"]
            .as_object()
            .map(|properties| properties.keys().collect())
            .unwrap_or_default();
        let required = schema["required"].as_array().into_iter().flatten();
        let required: Vec<&str> = required.map(text).collect();
        for property in texts(&fact["properties"]) {
            assert!(
                has.iter().any(|name| **name == property),
                "{name}.{property}"
            );
        }
        // Replies may have more required members, requests may not.
        let wanted = texts(&fact["required"]);
        assert!(
            wanted.iter().all(|property| required.contains(property)),
            "{name}: required {required:?}, not {wanted:?}"
        );
        let is_request = ["CreateModel", "UpdateModel", "RetireModel", "NodesSpec"]
            .iter()
            .any(|end| name.ends_with(end));
        if is_request {
            assert_eq!(
                required.len(),
                wanted.len(),
                "{name}: required {required:?}"
            );
        }
        for value in fact["values"].as_array().into_iter().flatten() {
            let values = schema["enum"].as_array().unwrap();
            assert!(values.contains(value), "{name}: {value}");
        }
    }
}

/// Returns the names of the possible schemas of a body.
fn schemas_of(body: &Value, document: &Value) -> Vec<String> {
    let schema = &body["content"]["application/json"]["schema"];
    let names = |schema: &Value| -> Vec<String> {
        let one = schema["$ref"].as_str().into_iter();
        let several = schema["anyOf"].as_array().into_iter().flatten();
        let mut names: Vec<_> = one
            .chain(several.filter_map(|schema| schema["$ref"].as_str()))
            .map(|name| name.rsplit('/').next().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let direct = names(schema);
    // Replace a schema that only combines others by these.
    match direct.as_slice() {
        [only] => Some(names(&document["components"]["schemas"][only])),
        _ => None,
    }
    .filter(|gathered| !gathered.is_empty())
    .unwrap_or(direct)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(text).collect()
}
