//! `duffy admin`: what it does with nodes, and prints.

use duffy_server::context::Ctx;
use duffy_server::db::Timestamp;
use duffy_server::lifecycle::operators::status::{self, NodeDetails, NodeFilter, NodeStatus};
use duffy_server::lifecycle::operators::{self, OperatorError, Repaired, Retired};
use serde::Serialize;

use super::operator_args::{ChangeNodeArgs, ListNodesArgs, NodeCommand};
use super::print;
use crate::commands::server_calls::{Server, connect};
use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;

/// How many events are shown with a node.
const LAST_EVENTS: u32 = 20;

pub fn run(command: &NodeCommand, loaded: &Loaded) -> Result<(), Failure> {
    let server = connect(loaded)?;
    match command {
        NodeCommand::ListNodes(args) => list(&server, args),
        NodeCommand::ShowNode(args) => {
            let details = find(&server, args.id)?;
            if args.json {
                print::json(&details)
            } else {
                output::data(&shown(&details))
            }
        }
        NodeCommand::RetireNode(args) => change(&server, args, async |ctx, id, reason| {
            let retired = operators::retire_node(&ctx, id, &reason).await?;
            Ok(retirement(&retired))
        }),
        NodeCommand::RepairNode(args) => change(&server, args, async |ctx, id, reason| {
            let repair = operators::repair_node(&ctx, id, &reason).await?;
            let mut done = repaired(&repair.repaired);
            if let Some(time) = repair.pool_waits_until {
                let time = print::time(Some(time));
                let waits = format!("; but its pool keeps failing, and waits until {time} UTC");
                done.message.push_str(&waits);
            }
            Ok(done)
        }),
        NodeCommand::HoldNode(args) if args.release => {
            change(&server, &args.node, async |ctx, id, reason| {
                operators::release_node(&ctx, id, &reason).await?;
                Ok(Done::new("released", "let go of"))
            })
        }
        NodeCommand::HoldNode(args) => change(&server, &args.node, async |ctx, id, reason| {
            operators::hold_node(&ctx, id, &reason).await?;
            let message = "held: it is not lent, picked, worked on or repaired";
            Ok(Done::new("held", message))
        }),
    }
}

/// What came of a change.
#[derive(Debug)]
struct Done {
    /// In a word, for scripts.
    outcome: &'static str,
    /// For people.
    message: String,
}

impl Done {
    fn new(outcome: &'static str, message: impl Into<String>) -> Self {
        Self {
            outcome,
            message: message.into(),
        }
    }
}

/// The same as scripts see it, with the node as it is then.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    outcome: &'a str,
    message: &'a str,
    node: NodeStatus,
}

fn change<F>(server: &Server, args: &ChangeNodeArgs, work: F) -> Result<(), Failure>
where
    F: AsyncFnOnce(Ctx, i64, String) -> Result<Done, OperatorError>,
{
    let reason = args.why.reason.clone();
    let done = server.with_context(async |ctx| work(ctx, args.id, reason).await)?;
    let done = done.map_err(Failure::new)?;
    if !args.why.json {
        return output::data(&format!("OK: node {}: {}", args.id, done.message));
    }
    print::json(&Changed {
        outcome: done.outcome,
        message: &done.message,
        node: find(server, args.id)?.node,
    })
}

fn retirement(retired: &Retired) -> Done {
    match retired {
        Retired::Deprovisioning => Done::new(
            "deprovisioning",
            "a worker deprovisions it, and it is not used again",
        ),
        Retired::WhenReturned { session_id, tenant } => {
            let message = match (session_id, tenant) {
                (Some(id), Some(tenant)) => {
                    let tenant = print::plain(tenant);
                    format!("will be gone when session {id} of {tenant} ends")
                }
                _ => "will be gone when its session ends".to_owned(),
            };
            Done::new("when-returned", message)
        }
        Retired::Gone => Done::new("gone", "gone; there was nothing to deprovision it with"),
        Retired::MachineTaken => Done::new(
            "machine-taken",
            "gone; another active node has its name or address, so its machine was not touched",
        ),
    }
}

fn repaired(repaired: &Repaired) -> Done {
    match repaired {
        Repaired::Deprovisioning => Done::new("deprovisioning", "a worker deprovisions it"),
        Repaired::Unused => Done::new("unused", "unused: a pool can pick it"),
        Repaired::TriedNow => Done::new("tried-now", "a worker tries it now"),
    }
}

/// Nodes as scripts see them.
#[derive(Debug, Serialize)]
struct Listed {
    nodes: Vec<NodeStatus>,
}

fn list(server: &Server, args: &ListNodesArgs) -> Result<(), Failure> {
    let filter = &NodeFilter {
        pool: args.pool.clone(),
        state: args.state,
        all: args.all,
    };
    let nodes = server.with_context(async |ctx| status::list_nodes(&ctx, filter).await)?;
    let nodes = nodes.map_err(Failure::new)?;
    if args.json {
        return print::json(&Listed { nodes });
    }
    let headings = [
        "id",
        "hostname",
        "ipaddr",
        "pool",
        "state",
        "since (UTC)",
        "attempts",
        "repairs",
        "held",
        "retry at",
        "lease",
        "session",
        "tenant",
        "error",
    ];
    let rows: Vec<_> = nodes.iter().map(row).collect();
    output::data(&print::table(&headings, &rows))
}

fn time(value: Option<Timestamp>) -> String {
    print::time(value.map(|time| time.0))
}

fn row(node: &NodeStatus) -> Vec<String> {
    vec![
        node.id.to_string(),
        print::text(node.hostname.as_deref()),
        print::text(node.ipaddr.as_deref()),
        print::text(node.pool.as_deref()),
        node.state.0.to_string(),
        time(node.state_since),
        node.attempts.to_string(),
        node.repairs.to_string(),
        time(node.held_at),
        time(node.retry_at),
        time(node.lease_expires_at),
        print::or_none(node.session_id, |id| id.to_string()),
        print::text(node.tenant.as_deref()),
        print::text(node.error()),
    ]
}

fn find(server: &Server, id: i64) -> Result<NodeDetails, Failure> {
    let found = server.with_context(async |ctx| status::find_node(&ctx, id, LAST_EVENTS).await)?;
    let found = found.map_err(Failure::new)?;
    found.ok_or_else(|| Failure::new(OperatorError::UnknownNode(id)))
}

fn shown(details: &NodeDetails) -> String {
    let node = &details.node;
    let mut lines = vec![
        ("id", node.id.to_string()),
        ("hostname", print::text(node.hostname.as_deref())),
        ("ipaddr", print::text(node.ipaddr.as_deref())),
        ("pool", print::text(node.pool.as_deref())),
        ("state", node.state.0.to_string()),
        ("since (UTC)", time(node.state_since)),
        ("reusable", node.reusable.to_string()),
        ("attempts", node.attempts.to_string()),
        ("repairs", node.repairs.to_string()),
        ("held", time(node.held_at)),
        ("retry at", time(node.retry_at)),
        ("lease", time(node.lease_expires_at)),
        (
            "session",
            print::or_none(node.session_id, |id| id.to_string()),
        ),
        ("tenant", print::text(node.tenant.as_deref())),
        ("comment", print::text(node.comment.as_deref())),
        ("created", time(Some(node.created_at))),
        ("retired", time(node.retired_at)),
    ];
    let mut data = details.data.clone();
    let error = data.shift_remove("error").unwrap_or_default();
    for (name, value) in &data {
        lines.push(("data", print::plain(&format!("{name}: {value}"))));
    }
    for member in ["failed_at", "detail", "log"] {
        let text = error.get(member).and_then(serde_json::Value::as_str);
        for line in text.unwrap_or_default().lines() {
            lines.push(("error", print::plain(line)));
        }
    }
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name:12} {value}\n"));
    let lines: String = lines.collect();
    format!("{lines}\n{}", print::events(&details.events, false))
}
