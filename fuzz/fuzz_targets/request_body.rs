//! Request bodies: any bytes give a request or a list of errors that can be sent. The stored values can be read back.
#![no_main]

use duffy_api::{FieldError, NodeCreate, SessionCreate, TenantCreate};
use duffy_server::http::error::ApiError;
use duffy_server::http::validate::{Form, Json, TenantChange, path_id, read_body};
use duffy_server::lifecycle::sessions::SessionChange;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const CONTENT_TYPES: [Option<&str>; 4] = [
    None,
    Some("application/json"),
    Some("application/problem+json; charset=utf-8"),
    Some("text/plain"),
];

/// Reads a request. Without one, there must be errors that can be sent.
fn read<T: Form>(body: &Json) -> Option<T> {
    T::from_body(body)
        .map_err(|errors| check_errors(&errors.into_fields()))
        .ok()
}

fn check_errors(errors: &[FieldError]) {
    assert!(!errors.is_empty());
    assert!(serde_json::to_string(errors).is_ok());
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
        let _ = path_id(text);
    }
    let content_type = CONTENT_TYPES[usize::from(*kind) % CONTENT_TYPES.len()];
    let body = match read_body(content_type, bytes) {
        Ok(body) => body,
        Err(ApiError::Invalid(errors)) => return check_errors(&errors),
        Err(_) => return,
    };
    if let Some(session) = read::<SessionCreate>(&body) {
        for spec in session.nodes_specs {
            assert!(spec.quantity > 0);
            check_text(&spec.pool);
        }
    }
    read::<SessionChange>(&body);
    if let Some(tenant) = read::<TenantCreate>(&body) {
        check_text(&tenant.name);
        check_text(&tenant.ssh_key);
    }
    read::<TenantChange>(&body);
    if let Some(node) = read::<NodeCreate>(&body) {
        check_text(&node.hostname);
        check_text(&node.ipaddr);
        check_text(node.comment.as_deref().unwrap_or_default());
        check_text(node.pool.as_deref().unwrap_or_default());
        check_stored(node.data);
    }
});
