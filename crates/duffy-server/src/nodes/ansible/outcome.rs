//! The result of an ended playbook, or the reason why there is none.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

use serde_json::Value;

use super::events::Events;
use crate::nodes::mechanism::{MechanismError, shorten};
use crate::process::Output;

/// Characters of a failure's reason that are kept; the log has all of them.
const DETAIL_CHARS: usize = 500;

/// Returns the results of an ended playbook, or what to tell the operator.
pub(super) fn judge_run(
    playbook: &Path,
    output: Output,
    events: Events,
) -> Result<Vec<Value>, MechanismError> {
    let name = playbook.display();
    let log = output.tail;
    if !output.status.success() {
        let reason = match events.failure {
            Some(failure) => format!(
                "task \"{}\" on {}: {}",
                failure.task, failure.host, failure.msg
            ),
            None => find_error(&log).to_owned(),
        };
        let detail = to_line(&format!(
            "playbook {name} failed ({}): {reason}",
            describe_status(output.status)
        ));
        return Err(MechanismError::Failed { detail, log });
    }
    let problem = match events.result {
        Some(Ok(value)) => match take_nodes(value) {
            Ok(nodes) => return Ok(nodes),
            Err(problem) => problem,
        },
        Some(Err(trouble)) => format!("its duffy_out cannot be read: {trouble}"),
        None => match events.hidden {
            Some(task) => format!(
                "it ended without a result, but set_fact in task \"{task}\" is hidden; remove no_log there if it sets duffy_out"
            ),
            None => {
                "it ended without a result; let it set_fact duffy_out, on a host that it runs on"
                    .to_owned()
            }
        },
    };
    let detail = to_line(&format!("playbook {name}: {problem}"));
    Err(MechanismError::BadResult { detail, log })
}

/// The list `nodes` of a result.
fn take_nodes(value: Value) -> Result<Vec<Value>, String> {
    let Value::Object(mut result) = value else {
        return Err(format!(
            "duffy_out is {}; make it an object with a list named nodes",
            kind_of(&value)
        ));
    };
    match result.remove("nodes") {
        Some(Value::Array(nodes)) => Ok(nodes),
        Some(other) => Err(format!(
            "duffy_out.nodes is {}; make it a list",
            kind_of(&other)
        )),
        None => Err("duffy_out has no list named nodes".to_owned()),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The line that says most if no task failed: for example a syntax error.
fn find_error(log: &str) -> &str {
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_error = |line: &&str| line.starts_with("ERROR") || line.starts_with("[ERROR]");
    lines
        .clone()
        .find(is_error)
        .or_else(|| lines.next_back())
        .unwrap_or("it printed nothing")
}

fn describe_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

/// One line of bounded length, without control characters.
fn to_line(text: &str) -> String {
    let words = text.split(|char: char| char.is_whitespace() || char.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    shorten(words.join(" "), DETAIL_CHARS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_have_a_list_of_nodes() {
        for (value, expected) in [
            (json!({"nodes": []}), Ok(vec![])),
            (
                json!({"nodes": [null, 1, {"a": 2}], "more": 1}),
                Ok(vec![json!(null), json!(1), json!({"a": 2})]),
            ),
            (json!({}), Err("duffy_out has no list named nodes")),
            (
                json!([]),
                Err("duffy_out is a list; make it an object with a list named nodes"),
            ),
            (
                json!("{'nodes': []}"),
                Err("duffy_out is a string; make it an object with a list named nodes"),
            ),
            (
                json!(null),
                Err("duffy_out is null; make it an object with a list named nodes"),
            ),
            (
                json!({"nodes": {"a": 1}}),
                Err("duffy_out.nodes is an object; make it a list"),
            ),
            (
                json!({"nodes": null}),
                Err("duffy_out.nodes is null; make it a list"),
            ),
        ] {
            assert_eq!(take_nodes(value), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn the_telling_line_is_found() {
        for (log, line) in [
            ("", "it printed nothing"),
            ("a\nb\n  ", "b"),
            (
                "[WARNING]: w\nERROR! the playbook: x could not be found\nusage",
                "ERROR! the playbook: x could not be found",
            ),
            ("[ERROR]: one\n[ERROR]: two\nend", "[ERROR]: one"),
        ] {
            assert_eq!(find_error(log), line);
        }
    }

    #[test]
    fn details_are_one_line_of_bounded_length() {
        assert_eq!(to_line(" a\n\tb\u{7}c \r\n"), "a b c");
        let long = to_line(&"é ".repeat(1000));
        assert_eq!(long.chars().count(), DETAIL_CHARS + 1);
    }

    #[test]
    fn statuses_are_told_apart() {
        assert_eq!(
            describe_status(ExitStatus::from_raw(2 << 8)),
            "exit status 2"
        );
        assert_eq!(
            describe_status(ExitStatus::from_raw(9)),
            "killed by signal 9"
        );
    }

    #[test]
    fn a_hidden_set_fact_is_named_when_there_is_no_result() {
        let output = || Output {
            status: ExitStatus::from_raw(0),
            stdout: vec![],
            tail: "log".to_owned(),
        };
        let hidden = Events {
            hidden: Some("Tell".to_owned()),
            ..Events::default()
        };
        let error = judge_run(Path::new("p.yml"), output(), hidden).unwrap_err();
        assert!(
            error.to_string().contains("remove no_log") && error.log() == "log",
            "{error}"
        );
        let known = Events {
            hidden: Some("Other".to_owned()),
            result: Some(Ok(json!({"nodes": [1]}))),
            ..Events::default()
        };
        assert_eq!(
            judge_run(Path::new("p.yml"), output(), known).unwrap(),
            [json!(1)]
        );
    }
}
