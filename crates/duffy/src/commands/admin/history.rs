//! `duffy admin`: prints events, and removes old ones.

use duffy_api::Event;
use duffy_server::context::Ctx;
use duffy_server::lifecycle::history::{self, Page, SessionHistory, prune};
use duffy_server::lifecycle::operators::{self, OperatorError};
use serde_json::json;

use super::print;
use crate::args::admin::operators::{EventsArgs, HistoryCommand, PurgeArgs};
use crate::failure::Failure;
use crate::output;

/// Runs a command.
pub async fn run(ctx: &Ctx, command: &HistoryCommand) -> Result<(), Failure> {
    match command {
        HistoryCommand::NodeEvents(args) => {
            let id = args.id;
            let events = history::list_node_events(ctx, id, None, page(args)).await?;
            print_events(&events.ok_or(OperatorError::UnknownNode(id))?, args)
        }
        HistoryCommand::SessionEvents(args) => {
            match history::list_session_events(ctx, args.id, None, page(args)).await? {
                SessionHistory::Events(events) => print_events(&events, args),
                SessionHistory::Unknown | SessionHistory::OfAnother => {
                    let message = format_args!("there is no session {}", args.id);
                    Err(Failure::new(message))
                }
            }
        }
        HistoryCommand::Purge(args) => purge(ctx, args).await,
    }
}

fn page(args: &EventsArgs) -> Page {
    Page {
        after: args.after,
        limit: args.limit,
    }
}

fn print_events(events: &[Event], args: &EventsArgs) -> Result<(), Failure> {
    let text = || print::events(events, args.verbose);
    print::result(args.json, &json!({ "events": events }), text)?;
    if let Some(last) = events.last()
        && u32::try_from(events.len()).is_ok_and(|count| count == args.limit)
    {
        output::words(&format!("There may be more: --after {}", last.id));
    }
    Ok(())
}

async fn purge(ctx: &Ctx, args: &PurgeArgs) -> Result<(), Failure> {
    let dry_run = args.dry_run;
    let (events, done) = if dry_run {
        let events = prune::count_older(ctx, args.older_than).await?;
        (events, "would remove")
    } else {
        let reason = &args.why.reason;
        let events = operators::purge_history(ctx, args.older_than, reason).await?;
        (events, "removed")
    };
    let json = json!({ "events": events, "dry_run": dry_run });
    print::result(args.why.json, &json, || {
        format!("OK: {done} {events} events")
    })?;
    if dry_run && !args.why.json {
        output::words("This was a dry run: nothing has been removed.");
    }
    Ok(())
}
