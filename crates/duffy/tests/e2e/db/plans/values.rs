//! Typical values of the parameters of statements, from the names of the columns that they are about.

use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;

use super::rows::RETIRED;
use crate::db::statements::Statement;

/// The value of a parameter.
#[derive(Debug, Clone)]
pub struct Value {
    /// `None` is NULL.
    pub text: Option<String>,
    /// The type of the parameter in PostgreSQL.
    pub kind: String,
    /// Whether the statement allows NULL, which usually means "all".
    optional: bool,
}

impl Value {
    /// Adds it to a statement for SQLite.
    pub fn bind<'q>(
        &self,
        query: Query<'q, Sqlite, SqliteArguments>,
    ) -> Query<'q, Sqlite, SqliteArguments> {
        match (&self.text, self.kind.as_str()) {
            (Some(text), "bigint") => query.bind(text.parse::<i64>().unwrap()),
            (Some(text), "double precision") => query.bind(text.parse::<f64>().unwrap()),
            (Some(text), "boolean") => query.bind(text == "true"),
            (text, _) => query.bind(text.clone()),
        }
    }

    /// As PostgreSQL reads it.
    pub fn literal(&self) -> String {
        self.text
            .as_ref()
            .map_or_else(|| "NULL".to_owned(), |text| format!("'{text}'"))
    }
}

/// Returns the sets of values with which a statement is tried: typical ones, and NULL for those that may be NULL.
pub fn values(statement: &Statement, kinds: &[String]) -> Vec<Vec<Value>> {
    let typical: Vec<Value> = kinds
        .iter()
        .enumerate()
        .map(|(index, kind)| {
            let parameter = format!("${}", index + 1);
            Value {
                text: typical(statement, &parameter, kind),
                kind: kind.clone(),
                optional: statement.text.contains(&format!("CAST({parameter} AS ")),
            }
        })
        .collect();
    let mut all = typical.clone();
    for value in all.iter_mut().filter(|value| value.optional) {
        value.text = None;
    }
    if typical.iter().any(|value| value.optional) {
        vec![typical, all]
    } else {
        vec![typical]
    }
}

/// Returns a typical value of a parameter. `None` is NULL.
fn typical(statement: &Statement, parameter: &str, kind: &str) -> Option<String> {
    let special = SPECIAL
        .iter()
        .find(|(function, special, _)| statement.function == *function && *special == parameter);
    if let Some((.., value)) = special {
        return Some((*value).to_owned());
    }
    let text = &statement.text;
    for (position, _) in text.match_indices(parameter) {
        let after = &text[position + parameter.len()..];
        let before = text[..position].trim_end();
        if after.starts_with(|next: char| next.is_ascii_digit()) {
            continue;
        }
        if before.ends_with("coalesce(") {
            return None;
        }
        if before.ends_with("{as_state") {
            return Some("ready".to_owned());
        }
        let Some(before) = before.strip_suffix(['=', '<', '>']) else {
            continue;
        };
        let order = text[..position].trim_end().ends_with(['<', '>']);
        let before = before.trim_end();
        let before = before.strip_suffix(" AS TEXT)").unwrap_or(before);
        let column = before.rsplit(|c: char| c != '_' && !c.is_ascii_alphabetic());
        if let Some(value) = column.take(1).find_map(|column| of_column(column, order)) {
            return Some(value);
        }
    }
    let value = inserted_column(text, parameter).and_then(|column| match column {
        "state" | "pool" | "node_id" | "session_id" | "tenant_id" => of_column(column, false),
        _ => None,
    });
    Some(value.unwrap_or_else(|| of_type(kind, text, parameter)))
}

/// Returns the column that gets the parameter in `INSERT INTO … (…) VALUES (…)`.
fn inserted_column<'t>(text: &'t str, parameter: &str) -> Option<&'t str> {
    let (columns, values) = text.split_once(") VALUES (")?;
    let (_, columns) = columns.split_once('(')?;
    let (values, _) = values.split_once(')')?;
    let is_parameter = |value: &str| value.split([' ', '}']).any(|word| word == parameter);
    let position = values.split(", ").position(is_parameter)?;
    columns.split(", ").nth(position)
}

/// The values of parameters for which neither the column nor the type says enough: the function, the parameter and the
/// value.
const SPECIAL: [(&str, &str, &str); 1] = [
    // It counts a part of the history that is known to be short.
    ("count_slice", "$3", "2020-01-02"),
];

/// Returns a value of a column; with `order`, a value that the column is larger or smaller than.
fn of_column(column: &str, order: bool) -> Option<String> {
    // A node in use with a long history.
    let node = RETIRED + 1;
    Some(match column {
        // A list goes on after its first page, which begins at 0.
        "id" if order => "0".to_owned(),
        "id" | "node_id" => node.to_string(),
        "session_id" => (RETIRED + 1).to_string(),
        "tenant_id" => "2".to_owned(),
        "pool" => "pool1".to_owned(),
        "lease" => "lease13".to_owned(),
        "key" => "key10".to_owned(),
        "name" => "tenant2".to_owned(),
        "hostname" => "node1".to_owned(),
        "ipaddr" => "192.0.0.1".to_owned(),
        "work" => "provisioning".to_owned(),
        "state" => "ready".to_owned(),
        "created_at" => "2100-01-01".to_owned(),
        _ => return None,
    })
}

/// Returns a value of a type of PostgreSQL.
fn of_type(kind: &str, text: &str, parameter: &str) -> String {
    match kind {
        "bigint" | "integer" => "100".to_owned(),
        // A day ago.
        "double precision" => "-86400".to_owned(),
        "boolean" => "false".to_owned(),
        "interval" => "1 hour".to_owned(),
        "json" if text.contains(&format!("{{ids {parameter}}}")) => {
            format!("[{}, {}]", RETIRED + 1, RETIRED + 2)
        }
        "json" if text.contains(&format!("{{json_rows {parameter}}}")) => format!(
            r#"[{{"id": {node}, "node_id": {node}, "session_id": {session}, "tenant_id": 2, "pool": "pool1", "cause": "x", "data": {{}}}}]"#,
            node = RETIRED + 1,
            session = RETIRED + 1
        ),
        "json" => "{}".to_owned(),
        kind if kind.starts_with("timestamp") => "2020-01-01 00:00:00.000000".to_owned(),
        _ => "text".to_owned(),
    }
}
