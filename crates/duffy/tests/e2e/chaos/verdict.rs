//! What Duffy's own checker says: the promises hold, or are seen not to.

use serde_json::Value;

use super::record::{Finding, Record};
use crate::support::Duffy;

/// Runs `duffy admin check`. It may run at any time; `at_rest` it expects more.
pub fn ask(duffy: &Duffy, at_rest: bool, record: &Record) {
    let mut arguments = vec!["admin", "check", "--json"];
    if at_rest {
        arguments.push("--at-rest");
    }
    let output = duffy.run(&arguments);
    let Ok(report) = serde_json::from_str::<Value>(&output.stdout) else {
        record.count("duffy admin check: no answer");
        if at_rest {
            record.find(Finding::new(format!("duffy admin check: {output:?}")));
        }
        return;
    };
    record.note(&format!("duffy admin check: {report}"));
    record.count("duffy admin check");
    for found in report["findings"].as_array().unwrap() {
        let mut finding = Finding::new(format!("duffy admin check says: {found}"));
        finding.nodes.extend(found["node_id"].as_i64());
        finding.sessions.extend(found["session_id"].as_i64());
        record.find(finding);
    }
}
