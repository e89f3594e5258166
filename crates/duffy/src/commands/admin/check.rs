//! `duffy admin check`: checks that Duffy's promises hold.

use duffy_server::context::Ctx;
use duffy_server::lifecycle::check::{CheckOptions, Finding, check};

use super::print;
use crate::args::admin::operators::CheckArgs;
use crate::failure::Failure;

/// Fails if a promise is broken.
pub async fn run(ctx: &Ctx, args: &CheckArgs) -> Result<(), Failure> {
    let options = CheckOptions {
        at_rest: args.at_rest,
        look_at_nodes: !args.no_ssh,
    };
    let report = check(ctx, options).await?;
    let is_good = report.findings.is_empty();
    print::result(args.json, &report, || {
        let findings = report.findings.iter().map(|found| line("WRONG", found));
        let notes = report.notes.iter().map(|note| line("NOTE", note));
        let lines: String = findings.chain(notes).collect();
        format!(
            "{lines}{}: {} findings; {} nodes, keys looked at on {}; {} running sessions",
            if is_good { "OK" } else { "FAILED" },
            report.findings.len(),
            report.nodes,
            report.nodes_looked_at,
            report.sessions,
        )
    })?;
    if is_good {
        Ok(())
    } else {
        Err(Failure::default())
    }
}

fn line(mark: &str, finding: &Finding) -> String {
    let mut about = String::new();
    about.extend(finding.session_id.map(|id| format!("session {id} ")));
    about.extend(finding.node_id.map(|id| format!("node {id} ")));
    about.extend(finding.pool.as_ref().map(|pool| format!("pool {pool} ")));
    let (number, message) = (finding.invariant, print::plain(&finding.message));
    format!("{mark} ({number}): {about}{message}\n")
}
