//! How the operators' commands print: tables for people, JSON for scripts.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use duffy_api::Event;
use serde::Serialize;

use crate::failure::Failure;
use crate::output;

/// Stands for a missing value.
const NONE: &str = "-";

/// Prints a value for scripts.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    output::data(&escape_rest(&serde_json::to_string_pretty(value)?))
}

/// Prints a value as JSON for scripts, or as text for people.
pub fn result(
    as_json: bool,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if as_json {
        json(value)
    } else {
        output::data(&text())
    }
}

/// Escapes the harmful characters that JSON allows in texts.
fn escape_rest(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if output::is_harmful(c) && c != '\n' {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Formats rows under their headings.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<_> = headings.iter().map(|text| text.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    let headings: Vec<_> = headings.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Puts a text on one line, and replaces characters that are harmful to a terminal.
pub fn plain(text: &str) -> String {
    text.replace(output::is_harmful, "\u{fffd}")
}

/// Formats an optional value.
pub fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| value.to_string())
}

/// Formats an optional text.
pub fn text(value: Option<&str>) -> String {
    optional(value.filter(|text| !text.is_empty()).map(plain))
}

/// Formats an optional time, in UTC.
pub fn time(value: Option<DateTime<Utc>>) -> String {
    optional(value.map(|time| time.format("%Y-%m-%d %H:%M:%S")))
}

/// A column of a list: its heading and how to format its values.
pub type Column<T> = (&'static str, fn(&T) -> String);

/// Formats a list, a line for each item.
pub fn list<T>(columns: &[Column<T>], items: &[T]) -> String {
    let headings: Vec<_> = columns.iter().map(|(heading, _)| *heading).collect();
    let row = |item| columns.iter().map(|(_, format)| format(item)).collect();
    let rows: Vec<_> = items.iter().map(row).collect();
    table(&headings, &rows)
}

const EVENT_COLUMNS: [Column<Event>; 8] = [
    ("id", |event| event.id.to_string()),
    ("time (UTC)", |event| time(Some(event.created_at))),
    ("node", |event| optional(event.node_id)),
    ("session", |event| optional(event.session_id)),
    ("state", state),
    ("cause", |event| plain(&event.cause)),
    ("actor", |event| text(event.actor.as_deref())),
    ("detail", |event| {
        let detail = event.detail.as_deref();
        text(detail.and_then(|detail| detail.lines().next()))
    }),
];

fn state(event: &Event) -> String {
    match (event.from_state, event.to_state) {
        (Some(from), Some(to)) if from != to => format!("{from} → {to}"),
        (from, to) => optional(to.or(from)),
    }
}

/// Formats events, a line each. With `verbose`, the remaining lines of the details follow.
pub fn events(events: &[Event], verbose: bool) -> String {
    let table = list(&EVENT_COLUMNS, events);
    if !verbose {
        return table;
    }
    let mut out = String::new();
    let details = events.iter().map(|event| event.detail.as_deref());
    for (line, detail) in table.lines().zip(std::iter::once(None).chain(details)) {
        let _ = writeln!(out, "{line}");
        for more in detail.into_iter().flat_map(|detail| detail.lines().skip(1)) {
            let _ = writeln!(out, "    {}", plain(more));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use duffy_api::NodeState;

    #[test]
    fn json_is_escaped_and_stays_the_same() {
        let value = serde_json::json!({"a\u{9b}": ["\u{7f}\u{202e}\u{1b}\né"]});
        let text = escape_rest(&serde_json::to_string_pretty(&value).unwrap());
        assert!(
            !text.contains(|c| output::is_harmful(c) && c != '\n'),
            "{text:?}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }

    #[test]
    fn columns_stand_below_each_other_and_nothing_reaches_the_terminal() {
        let made = |detail: Option<&str>, from| Event {
            id: 7,
            created_at: Utc.with_ymd_and_hms(2026, 11, 22, 9, 21, 20).unwrap(),
            node_id: Some(1),
            session_id: None,
            tenant_id: None,
            pool: None,
            from_state: from,
            to_state: Some(NodeState::Failed),
            cause: "failed".into(),
            actor: Some("é".into()),
            detail: detail.map(ToOwned::to_owned),
        };
        let all = [
            made(None, None),
            made(Some("one\u{1b}[2J\ntwo\r\n"), Some(NodeState::Ready)),
        ];
        assert_eq!(
            events(&all, true),
            "\
id  time (UTC)           node  session  state           cause   actor  detail
7   2026-11-22 09:21:20  1     -        failed          failed  é      -
7   2026-11-22 09:21:20  1     -        ready → failed  failed  é      one\u{fffd}[2J
    two
"
        );
        assert_eq!(events(&all, false).lines().count(), 3);
    }
}
