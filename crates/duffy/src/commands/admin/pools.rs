//! `duffy admin`: what it does with pools, and prints.

use duffy_api::NodeState;
use duffy_server::lifecycle::operators::status::{self, PoolStatus};
use duffy_server::lifecycle::pools::drain;
use serde::Serialize;

use super::operator_args::PoolCommand;
use super::print;
use crate::commands::server_calls::{Server, connect};
use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;

pub fn run(command: &PoolCommand, loaded: &Loaded) -> Result<(), Failure> {
    let server = connect(loaded)?;
    match command {
        PoolCommand::ListPools { json } => {
            let pools = list(&server)?;
            if *json {
                print::json(&Listed { pools })
            } else {
                output::data(&shown(&pools))
            }
        }
        PoolCommand::DrainPool(args) => {
            let (name, reason) = (&args.name, &args.why.reason);
            let done =
                server.with_context(async |ctx| drain::drain_pool(&ctx, name, reason).await)?;
            let released = done.map_err(Failure::new)?;
            let message = format!("drained; nodes that are deprovisioned now: {released}");
            told(&server, name, "drained", &message, args.why.json)
        }
        PoolCommand::ResumePool(args) => {
            let (name, reason) = (&args.name, &args.why.reason);
            let done =
                server.with_context(async |ctx| drain::resume_pool(&ctx, name, reason).await)?;
            done.map_err(Failure::new)?;
            told(&server, name, "resumed", "is filled again", args.why.json)
        }
    }
}

/// Pools as scripts see them.
#[derive(Debug, Serialize)]
struct Listed {
    pools: Vec<PoolStatus>,
}

/// A change as scripts see it, with the pool as it is then.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    outcome: &'a str,
    message: &'a str,
    pool: Option<PoolStatus>,
}

fn told(
    server: &Server,
    name: &str,
    outcome: &str,
    message: &str,
    json: bool,
) -> Result<(), Failure> {
    if !json {
        return output::data(&format!("OK: pool {}: {message}", print::plain(name)));
    }
    let pool = list(server)?.into_iter().find(|pool| pool.name == name);
    print::json(&Changed {
        outcome,
        message,
        pool,
    })
}

fn list(server: &Server) -> Result<Vec<PoolStatus>, Failure> {
    let pools = server.with_context(async |ctx| status::list_pools(&ctx).await)?;
    pools.map_err(Failure::new)
}

fn shown(pools: &[PoolStatus]) -> String {
    let states = NodeState::ALL.into_iter();
    let states: Vec<_> = states.filter(|state| *state != NodeState::Done).collect();
    let mut headings = vec!["pool", "fill-level"];
    headings.extend(states.iter().map(|state| state.as_str()));
    headings.extend(["held", "condition"]);
    let row = |pool: &PoolStatus| {
        let mut row = vec![
            print::plain(&pool.name),
            print::or_none(pool.fill_level, |level| level.to_string()),
        ];
        let levels = states.iter().map(|state| pool.levels.get(state));
        row.extend(levels.map(|level| level.copied().unwrap_or(0).to_string()));
        row.push(pool.held.to_string());
        row.push(condition(pool));
        row
    };
    let rows: Vec<_> = pools.iter().map(row).collect();
    print::table(&headings, &rows)
}

/// What is out of the ordinary.
fn condition(pool: &PoolStatus) -> String {
    let mut parts = Vec::new();
    if !pool.configured {
        parts.push("not in the configuration".to_owned());
    }
    if let Some(drained) = &pool.drained {
        let since = print::time(Some(drained.since.0));
        let reason = print::text(drained.reason.as_deref());
        parts.push(format!("drained since {since}: {reason}"));
    }
    for failing in &pool.failing {
        let (work, failures) = (failing.work.0, failing.failures);
        let retry_at = print::time(failing.retry_at.map(|time| time.0));
        let detail = failing
            .detail
            .as_deref()
            .and_then(|text| text.lines().next());
        let detail = print::text(detail);
        parts.push(format!(
            "{work} failed {failures} times in a row, next try {retry_at}: {detail}"
        ));
    }
    print::text(Some(parts.join("; ").as_str()))
}
