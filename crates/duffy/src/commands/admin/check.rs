//! `duffy admin check`: looks whether what Duffy promises holds.

use std::process::ExitCode;

use duffy_server::lifecycle::check::{CheckOptions, CheckReport, Finding, check};

use super::operator_args::CheckArgs;
use super::print;
use crate::commands::server_calls::connect;
use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;

/// Exits with 1 when something is not as promised.
pub fn main(args: &CheckArgs, loaded: &Loaded) -> ExitCode {
    match run(args, loaded) {
        Ok(report) if report.findings.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => output::finish(Err(failure)),
    }
}

fn run(args: &CheckArgs, loaded: &Loaded) -> Result<CheckReport, Failure> {
    let options = CheckOptions {
        at_rest: args.at_rest,
        look_at_nodes: !args.no_ssh,
    };
    let report = connect(loaded)?.with_context(async |ctx| check(&ctx, options).await)?;
    let report = report.map_err(Failure::new)?;
    if args.json {
        print::json(&report)?;
        return Ok(report);
    }
    let mut lines: Vec<String> = Vec::new();
    lines.extend(report.findings.iter().map(|found| line("WRONG", found)));
    lines.extend(report.notes.iter().map(|note| line("NOTE", note)));
    let mark = if report.findings.is_empty() {
        "OK"
    } else {
        "FAILED"
    };
    lines.push(format!(
        "{mark}: {} findings; {} nodes, keys looked at on {}; {} running sessions",
        report.findings.len(),
        report.nodes,
        report.nodes_looked_at,
        report.sessions,
    ));
    output::data(&lines.join("\n"))?;
    Ok(report)
}

fn line(mark: &str, finding: &Finding) -> String {
    let mut about = Vec::new();
    about.extend(finding.session_id.map(|id| format!("session {id} ")));
    about.extend(finding.node_id.map(|id| format!("node {id} ")));
    about.extend(finding.pool.as_ref().map(|pool| format!("pool {pool} ")));
    let (number, about, message) = (finding.invariant, about.concat(), &finding.message);
    format!("{mark} ({number}): {about}{}", print::plain(message))
}
