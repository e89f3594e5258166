//! `duffy admin`: lists and changes pools.

use duffy_api::NodeState;
use duffy_server::context::Ctx;
use duffy_server::lifecycle::operators::status::{self, PoolStatus};
use duffy_server::lifecycle::pools::drain;
use serde_json::json;

use super::print;
use crate::args::admin::operators::{ChangePoolArgs, PoolCommand};
use crate::failure::Failure;
use crate::output;

/// Runs a command.
pub async fn run(ctx: &Ctx, command: &PoolCommand) -> Result<(), Failure> {
    match command {
        PoolCommand::ListPools { json } => {
            let pools = status::list_pools(ctx).await?;
            print::result(*json, &json!({ "pools": pools }), || shown(&pools))
        }
        PoolCommand::DrainPool(args) => {
            let released = drain::drain_pool(ctx, &args.name, &args.why.reason).await?;
            let message = format!("drained; nodes that are deprovisioned now: {released}");
            report(ctx, args, "drained", &message).await
        }
        PoolCommand::ResumePool(args) => {
            drain::resume_pool(ctx, &args.name, &args.why.reason).await?;
            report(ctx, args, "resumed", "is filled again").await
        }
    }
}

/// Prints the result of a change: one word for scripts, a message for people.
async fn report(
    ctx: &Ctx,
    args: &ChangePoolArgs,
    outcome: &str,
    message: &str,
) -> Result<(), Failure> {
    if !args.why.json {
        let name = print::plain(&args.name);
        return output::data(&format!("OK: pool {name}: {message}"));
    }
    let mut pools = status::list_pools(ctx).await?.into_iter();
    let pool = pools.find(|pool| pool.name == args.name);
    print::json(&json!({ "outcome": outcome, "message": message, "pool": pool }))
}

fn shown(pools: &[PoolStatus]) -> String {
    let states = NodeState::ALL.into_iter();
    let states: Vec<_> = states.filter(|state| *state != NodeState::Done).collect();
    let mut headings = vec!["pool", "fill-level"];
    headings.extend(states.iter().map(|state| state.as_str()));
    headings.extend(["held", "condition"]);
    let row = |pool: &PoolStatus| {
        let mut row = vec![print::plain(&pool.name), print::optional(pool.fill_level)];
        let levels = states.iter().map(|state| pool.levels.get(state));
        row.extend(levels.map(|level| level.copied().unwrap_or(0).to_string()));
        row.push(pool.held.to_string());
        row.push(condition(pool));
        row
    };
    let rows: Vec<_> = pools.iter().map(row).collect();
    print::table(&headings, &rows)
}

/// Describes what is unusual about a pool.
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
