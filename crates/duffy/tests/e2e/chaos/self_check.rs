//! Runs `duffy admin check` and reports its findings.

use serde_json::Value;

use super::log::{Finding, Log};
use crate::support::Duffy;

/// Runs `duffy admin check`, with `--at-rest` if the run is idle.
pub fn run(duffy: &Duffy, at_rest: bool, log: &Log) {
    let mut arguments = vec!["admin", "check", "--json"];
    if at_rest {
        arguments.push("--at-rest");
    }
    let output = duffy.run(&arguments);
    let Ok(report) = serde_json::from_str::<Value>(&output.stdout) else {
        log.count("duffy admin check failed");
        if at_rest {
            log.report(Finding::new(format!("duffy admin check: {output:?}")));
        }
        return;
    };
    log.write(&format!("duffy admin check: {report}"));
    log.count("duffy admin check");
    for found in report["findings"].as_array().unwrap() {
        let mut finding = Finding::new(format!("duffy admin check: {found}"));
        finding.nodes.extend(found["node_id"].as_i64());
        finding.sessions.extend(found["session_id"].as_i64());
        log.report(finding);
    }
}
