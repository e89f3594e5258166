//! Request bodies: any bytes give a request or a list of errors that can be sent. The stored values can be read back.
#![no_main]

use duffy_server::http::validate::{
    Body, Errors, Read, Unreadable, node_create, path_id, read_body, session_change,
    session_create, tenant_change, tenant_create,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const CONTENT_TYPES: [Option<&str>; 4] = [
    None,
    Some("application/json"),
    Some("application/problem+json; charset=utf-8"),
    Some("text/plain"),
];

/// Reads a request. Without one, there must be errors that can be sent.
fn read<T>(body: &Body, read: impl FnOnce(&Body, &mut Errors) -> Read<T>) -> Option<T> {
    let mut errors = Errors::new();
    let value = read(body, &mut errors);
    match errors.finish(value) {
        Ok(value) => Some(value),
        Err(errors) => {
            assert!(!errors.is_empty());
            assert!(serde_json::to_string(&errors).is_ok());
            None
        }
    }
}

fn check_text(text: &str) {
    assert!(!text.contains('\0'), "PostgreSQL accepts no NUL");
}

fn check_texts(value: &Value) {
    match value {
        Value::String(text) => check_text(text),
        Value::Array(items) => items.iter().for_each(check_texts),
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            check_text(name);
            check_texts(value);
        }),
        _ => {}
    }
}

fn check_stored(data: Map<String, Value>) {
    let data = Value::Object(data);
    check_texts(&data);
    let Ok(text) = serde_json::to_string(&data) else {
        panic!("cannot be written: {data:?}");
    };
    assert!(
        serde_json::from_str::<Value>(&text).is_ok(),
        "cannot be read back: {text}"
    );
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = path_id(text, &mut Errors::new());
    }
    let content_type = CONTENT_TYPES[usize::from(*kind) % CONTENT_TYPES.len()];
    let body = match read_body(content_type, bytes) {
        Ok(body) => body,
        Err(Unreadable::Json(error)) => {
            assert!(serde_json::to_string(&error).is_ok());
            return;
        }
        Err(Unreadable::Encoding) => return,
    };
    if let Some(session) = read(&body, session_create) {
        for spec in session.nodes_specs {
            assert!(spec.quantity > 0);
            check_text(&spec.pool);
        }
    }
    read(&body, session_change);
    if let Some(tenant) = read(&body, tenant_create) {
        check_text(&tenant.name);
        check_text(&tenant.ssh_key);
    }
    read(&body, tenant_change);
    if let Some(node) = read(&body, node_create) {
        check_text(&node.hostname);
        check_text(&node.ipaddr);
        check_text(node.comment.as_deref().unwrap_or_default());
        check_text(node.pool.as_deref().unwrap_or_default());
        check_stored(node.data);
    }
});
