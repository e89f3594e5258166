//! The old API's description.

use serde_json::{Value, json};

/// What `/openapi.json` says.
pub fn document() -> Value {
    let failure = "What was asked for is not done: the body says so in words, the log says why";
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Duffy, the old API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "For clients that know no other. Each request becomes one to Duffy's \
                web API. Failures have the status 200 and are texts: so these clients expect it.",
        },
        "paths": {
            "/Node/get": { "get": {
                "summary": "Ask for nodes",
                "operationId": "get_nodes",
                "parameters": [
                    key(),
                    parameter("ver", "Version of the operating system", &json!("7")),
                    parameter("arch", "Architecture", &json!("x86_64")),
                    parameter("count", "How many nodes", &json!(1)),
                    parameter("flavor", "Size of the machines", &Value::Null),
                ],
                "responses": replies(
                    "Session and host names. Or a text when there is none to be had",
                    &json!({"ssid": 17, "hosts": ["n1.example.org"]}),
                ),
            }},
            "/Node/done": { "get": {
                "summary": "Give the nodes of a session back",
                "operationId": "return_nodes",
                "parameters": [key(), ssid()],
                "responses": replies(failure, &json!("Done")),
            }},
            "/Node/fail": { "get": {
                "summary": "Keep the nodes of a session for six more hours, to look at them",
                "operationId": "extend_nodes",
                "parameters": [key(), ssid()],
                "responses": replies(failure, &json!("Done")),
            }},
            "/Inventory": { "get": {
                "summary": "List the nodes that are lent",
                "description": "With a key its owner's, as host name and session. Without one \
                    everybody's, in the columns of the old database: id, host name, address, \
                    chassis, used count, state, session (as text), distribution, release, \
                    version, architecture, pool, console port, flavor.",
                "operationId": "list_nodes",
                "parameters": [parameter("key", "API key", &Value::Null)],
                "responses": replies("The nodes", &json!([["n1.example.org", 17]])),
            }},
            "/healthz": { "get": {
                "summary": "Say whether the web API answers",
                "operationId": "health",
                "responses": {
                    "200": {"description": "It does"},
                    "503": {"description": "It does not"},
                },
            }},
        },
    })
}

fn key() -> Value {
    json!({
        "name": "key", "in": "query", "required": true, "description": "API key",
        "schema": {"type": "string"},
    })
}

fn ssid() -> Value {
    json!({
        "name": "ssid", "in": "query", "required": false, "description": "Number of the session",
        "schema": {"type": "string"},
    })
}

fn parameter(name: &str, description: &str, default: &Value) -> Value {
    let kind = if default.is_number() {
        "integer"
    } else {
        "string"
    };
    let mut schema = json!({ "type": kind });
    if !default.is_null() {
        schema["default"] = default.clone();
    }
    json!({
        "name": name, "in": "query", "required": false, "description": description,
        "schema": schema,
    })
}

fn replies(description: &str, example: &Value) -> Value {
    json!({
        "200": {
            "description": description,
            "content": {"application/json": {"example": example}},
        },
        "403": {"description": "No key, a wrong one, or one that is not good for this"},
        "422": {"description": "A parameter is none"},
    })
}
