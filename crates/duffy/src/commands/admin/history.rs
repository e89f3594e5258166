//! `duffy admin`: prints what happened, and removes what is old.

use duffy_api::Event;
use duffy_server::lifecycle::history::{self, Page, SessionHistory, prune};
use duffy_server::lifecycle::operators::{self, OperatorError};
use serde::Serialize;

use super::operator_args::{EventsArgs, HistoryCommand, PurgeArgs};
use super::print;
use crate::commands::server_calls::{Server, connect};
use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;

pub fn run(command: &HistoryCommand, loaded: &Loaded) -> Result<(), Failure> {
    let server = connect(loaded)?;
    match command {
        HistoryCommand::NodeEvents(args) => {
            let (id, page) = (args.id, page(args));
            let events = server
                .with_context(async |ctx| history::list_node_events(&ctx, id, None, page).await)?;
            let events = events.map_err(Failure::new)?;
            let events = events.ok_or_else(|| Failure::new(OperatorError::UnknownNode(id)))?;
            tell(events, args)
        }
        HistoryCommand::SessionEvents(args) => {
            let (id, page) = (args.id, page(args));
            let history = server.with_context(async |ctx| {
                history::list_session_events(&ctx, id, None, page).await
            })?;
            match history.map_err(Failure::new)? {
                SessionHistory::Events(events) => tell(events, args),
                SessionHistory::Unknown | SessionHistory::OfAnother => {
                    Err(Failure(format!("there is no session {id}")))
                }
            }
        }
        HistoryCommand::Purge(args) => purge(&server, args),
    }
}

fn page(args: &EventsArgs) -> Page {
    Page {
        after: args.after,
        limit: args.limit,
    }
}

/// Events as scripts see them.
#[derive(Debug, Serialize)]
struct Events {
    events: Vec<Event>,
}

fn tell(events: Vec<Event>, args: &EventsArgs) -> Result<(), Failure> {
    let full = u32::try_from(events.len()).is_ok_and(|count| count == args.limit);
    let last = events.last().filter(|_| full).map(|event| event.id);
    if args.json {
        print::json(&Events { events })?;
    } else {
        output::data(&print::events(&events, args.verbose))?;
    }
    if let Some(last) = last {
        output::words(&format!("There may be more: --after {last}"));
    }
    Ok(())
}

/// What was removed, as scripts see it.
#[derive(Debug, Serialize)]
struct Purged {
    events: u64,
    dry_run: bool,
}

fn purge(server: &Server, args: &PurgeArgs) -> Result<(), Failure> {
    let (age, reason, dry_run) = (args.older_than, &args.why.reason, args.dry_run);
    let events = server.with_context(async |ctx| {
        if dry_run {
            prune::count_older(&ctx, age).await
        } else {
            operators::purge_history(&ctx, age, reason).await
        }
    })?;
    let events = events.map_err(Failure::new)?;
    if args.why.json {
        return print::json(&Purged { events, dry_run });
    }
    let mark = if dry_run { "would remove" } else { "removed" };
    output::data(&format!("OK: {mark} {events} events"))?;
    if dry_run {
        output::words("This was a dry run: nothing has been removed.");
    }
    Ok(())
}
