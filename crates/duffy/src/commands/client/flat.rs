//! The flat format: for each pool or node, a line of `key=value` pairs that a shell can read.

use duffy_api::Detail;
use duffy_config::python::number_repr;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Formats a reply. An empty list has no lines.
pub fn render(reply: &Value) -> Result<String, Failure> {
    let lines = flatten(reply).map_err(|what| {
        Failure::new(format_args!(
            "can't print the reply flat, {what}: use --format json to see it"
        ))
    })?;
    Ok(lines.join("\n"))
}

fn flatten(reply: &Value) -> Result<Vec<String>, String> {
    if let Some(error) = reply.get("error") {
        let detail = Detail::deserialize(member(error, "detail")?).map_err(|e| e.to_string())?;
        Ok(vec![pair("error", &Value::String(detail.to_string()))])
    } else if let Some(pool) = reply.get("pool") {
        Ok(vec![flatten_pool(pool)?])
    } else if let Some(pools) = reply.get("pools") {
        list(pools, "pools")?.iter().map(flatten_pool).collect()
    } else if let Some(session) = reply.get("session") {
        flatten_session(session)
    } else if let Some(sessions) = reply.get("sessions") {
        let lines = list(sessions, "sessions")?.iter().map(flatten_session);
        Ok(lines.collect::<Result<Vec<_>, _>>()?.concat())
    } else {
        Err("it is about neither pools nor sessions".to_owned())
    }
}

fn flatten_pool(pool: &Value) -> Result<String, String> {
    let fill_level = pool.get("fill-level").or_else(|| pool.get("fill_level"));
    let mut fields = vec![
        pair("pool_name", member(pool, "name")?),
        pair("fill_level", fill_level.unwrap_or(&Value::Null)),
    ];
    if let Some(levels) = pool.get("levels") {
        for state in [
            "provisioning",
            "ready",
            "contextualizing",
            "deployed",
            "deprovisioning",
        ] {
            fields.push(pair(&format!("levels_{state}"), member(levels, state)?));
        }
    }
    Ok(fields.join(" "))
}

fn flatten_session(session: &Value) -> Result<Vec<String>, String> {
    let nodes = list(member(session, "nodes")?, "nodes")?.iter();
    let mut nodes: Vec<&Map<String, Value>> = nodes
        .map(Value::as_object)
        .collect::<Option<_>>()
        .ok_or("a node in it has no members")?;
    // Missing values come first.
    let key = |node: &Map<String, Value>| {
        ["pool", "hostname", "ipaddr"]
            .map(|key| node.get(key).and_then(Value::as_str).map(str::to_owned))
    };
    nodes.sort_by_cached_key(|node| key(node));
    let mut lines = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut fields = vec![pair("session_id", member(session, "id")?)];
        for key in ["active", "created_at", "retired_at"] {
            fields.push(pair(key, member(session, key)?));
        }
        for key in ["pool", "hostname", "ipaddr"] {
            fields.push(pair(key, node.get(key).unwrap_or(&Value::Null)));
        }
        lines.push(fields.join(" "));
    }
    Ok(lines)
}

fn member<'a>(value: &'a Value, key: &str) -> Result<&'a Value, String> {
    value.get(key).ok_or_else(|| format!("it lacks `{key}`"))
}

fn list<'a>(value: &'a Value, what: &str) -> Result<&'a Vec<Value>, String> {
    value
        .as_array()
        .ok_or_else(|| format!("`{what}` in it is not a list"))
}

/// Formats `key=value`. Texts are always in single quotes, so that a shell expands nothing in them.
fn pair(key: &str, value: &Value) -> String {
    let value = match value {
        Value::Null => String::new(),
        Value::Bool(true) => "TRUE".to_owned(),
        Value::Bool(false) => "FALSE".to_owned(),
        Value::Number(number) => number_repr(number),
        Value::String(text) => quote(text),
        other => quote(&other.to_string()),
    };
    format!("{key}={value}")
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_mean_nothing_to_a_shell() {
        let reply = json!({"error": {"detail": "can't $(rm) `x` \"y\"\n;"}});
        assert_eq!(
            render(&reply).unwrap(),
            "error='can'\"'\"'t $(rm) `x` \"y\"\n;'"
        );
        assert_eq!(pair("k", &json!("")), "k=''");
        assert_eq!(pair("k", &json!([1, "a'"])), "k='[1,\"a'\"'\"'\"]'");
        assert_eq!(pair("k", &json!(1.0)), "k=1.0");
    }

    #[test]
    fn field_errors_are_one_line() {
        let reply = json!({"error": {"detail": [
            {"type": "missing", "loc": ["body", "nodes_specs"], "msg": "Field required", "input": null},
            {"type": "missing", "loc": ["body", 0], "msg": "No", "input": null},
        ]}});
        assert_eq!(
            render(&reply).unwrap(),
            "error='body.nodes_specs: Field required; body.0: No'"
        );
    }

    #[test]
    fn nodes_are_sorted_and_nothing_is_missing() {
        let node =
            |pool: Value, name: &str| json!({"pool": pool, "hostname": name, "ipaddr": null});
        let session = json!({"id": 1, "active": false, "created_at": "c", "retired_at": "r",
            "nodes": [node(json!("b"), "x"), node(json!("a"), "z"), node(Value::Null, "y")]});
        let lines = render(&json!({"session": session})).unwrap();
        assert_eq!(
            lines,
            "session_id=1 active=FALSE created_at='c' retired_at='r' pool= hostname='y' ipaddr=\n\
             session_id=1 active=FALSE created_at='c' retired_at='r' pool='a' hostname='z' ipaddr=\n\
             session_id=1 active=FALSE created_at='c' retired_at='r' pool='b' hostname='x' ipaddr="
        );
    }

    #[test]
    fn other_replies_are_refused() {
        for (reply, why) in [
            (json!({}), "neither"),
            (json!(null), "neither"),
            (json!({"pools": 1}), "`pools` in it is not a list"),
            (json!({"pool": {}}), "lacks `name`"),
            (
                json!({"pool": {"name": "a", "levels": {}}}),
                "lacks `provisioning`",
            ),
            (json!({"sessions": [{}]}), "lacks `nodes`"),
            (json!({"session": {"nodes": [1]}}), "no members"),
            (json!({"error": {}}), "lacks `detail`"),
        ] {
            let error = render(&reply).unwrap_err();
            assert!(error.text.contains(why), "{reply}: {error}");
        }
        assert_eq!(render(&json!({"sessions": []})).unwrap(), "");
    }
}
