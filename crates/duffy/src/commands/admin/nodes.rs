//! `duffy admin`: lists, shows and changes nodes.

use std::borrow::Cow;

use duffy_server::context::Ctx;
use duffy_server::db::Timestamp;
use duffy_server::lifecycle::operators::status::{self, NodeDetails, NodeFilter, NodeStatus};
use duffy_server::lifecycle::operators::{self, OperatorError, Repaired, Retired};
use serde_json::json;

use super::print;
use crate::args::admin::operators::{ChangeNodeArgs, ListNodesArgs, NodeCommand};
use crate::failure::Failure;
use crate::output;

/// How many events are shown with a node.
const LAST_EVENTS: u32 = 20;

/// Runs a command.
pub async fn run(ctx: &Ctx, command: &NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::ListNodes(args) => list(ctx, args).await,
        NodeCommand::ShowNode(args) => {
            let details = find(ctx, args.id).await?;
            print::result(args.json, &details, || shown(&details))
        }
        NodeCommand::RetireNode(args) => {
            let retired = operators::retire_node(ctx, args.id, &args.why.reason).await?;
            let (outcome, message) = retirement(retired);
            report(ctx, args, outcome, &message).await
        }
        NodeCommand::RepairNode(args) => {
            let repair = operators::repair_node(ctx, args.id, &args.why.reason).await?;
            let (outcome, message) = match repair.repaired {
                Repaired::Deprovisioning => ("deprovisioning", "a worker deprovisions it"),
                Repaired::Unused => ("unused", "unused: a pool can pick it"),
                Repaired::TriedNow => ("tried-now", "a worker tries it now"),
            };
            let waits = repair.pool_waits_until.map_or_else(String::new, |time| {
                let time = print::time(Some(time));
                format!("; but its pool keeps failing, and waits until {time} UTC")
            });
            report(ctx, args, outcome, &format!("{message}{waits}")).await
        }
        NodeCommand::HoldNode(args) if args.release => {
            operators::release_node(ctx, args.node.id, &args.node.why.reason).await?;
            report(ctx, &args.node, "released", "released").await
        }
        NodeCommand::HoldNode(args) => {
            operators::hold_node(ctx, args.node.id, &args.node.why.reason).await?;
            let message = "held: it is not lent, picked, worked on or repaired";
            report(ctx, &args.node, "held", message).await
        }
    }
}

/// Prints the result of a change: one word for scripts, a message for people.
async fn report(
    ctx: &Ctx,
    args: &ChangeNodeArgs,
    outcome: &str,
    message: &str,
) -> Result<(), Failure> {
    if !args.why.json {
        return output::data(&format!("OK: node {}: {message}", args.id));
    }
    let node = find(ctx, args.id).await?.node;
    print::json(&json!({ "outcome": outcome, "message": message, "node": node }))
}

fn retirement(retired: Retired) -> (&'static str, Cow<'static, str>) {
    match retired {
        Retired::Deprovisioning => (
            "deprovisioning",
            "a worker deprovisions it, and it is not used again".into(),
        ),
        Retired::WhenReturned {
            session_id: Some(id),
            tenant: Some(tenant),
        } => {
            let tenant = print::plain(&tenant);
            let message = format!("will be gone when session {id} of {tenant} ends");
            ("when-returned", message.into())
        }
        Retired::WhenReturned { .. } => {
            ("when-returned", "will be gone when its session ends".into())
        }
        Retired::Gone => (
            "gone",
            "gone; there was nothing to deprovision it with".into(),
        ),
        Retired::MachineTaken => (
            "machine-taken",
            "gone; another active node has its name or address, so its machine was not touched"
                .into(),
        ),
    }
}

/// Where a field of a node is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Always,
    InLists,
    InDetails,
}

use Shown::{Always, InDetails, InLists};

fn time(value: Option<Timestamp>) -> String {
    print::time(value.map(|time| time.0))
}

type Field = (&'static str, Shown, fn(&NodeStatus) -> String);

const FIELDS: [Field; 19] = [
    ("id", Always, |node| node.id.to_string()),
    ("hostname", Always, |node| {
        print::text(node.hostname.as_deref())
    }),
    ("ipaddr", Always, |node| print::text(node.ipaddr.as_deref())),
    ("pool", Always, |node| print::text(node.pool.as_deref())),
    ("state", Always, |node| node.state.0.to_string()),
    ("since (UTC)", Always, |node| time(node.state_since)),
    ("reusable", InDetails, |node| node.reusable.to_string()),
    ("attempts", Always, |node| node.attempts.to_string()),
    ("repairs", Always, |node| node.repairs.to_string()),
    ("held", Always, |node| time(node.held_at)),
    ("retry at", Always, |node| time(node.retry_at)),
    ("lease", Always, |node| time(node.lease_expires_at)),
    ("probed", InDetails, |node| time(node.probed_at)),
    ("session", Always, |node| print::optional(node.session_id)),
    ("tenant", Always, |node| print::text(node.tenant.as_deref())),
    ("error", InLists, |node| print::text(node.error())),
    ("comment", InDetails, |node| {
        print::text(node.comment.as_deref())
    }),
    ("created", InDetails, |node| time(Some(node.created_at))),
    ("retired", InDetails, |node| time(node.retired_at)),
];

async fn list(ctx: &Ctx, args: &ListNodesArgs) -> Result<(), Failure> {
    let filter = NodeFilter {
        pool: args.pool.clone(),
        state: args.state,
        all: args.all,
    };
    let nodes = status::list_nodes(ctx, &filter).await?;
    print::result(args.json, &json!({ "nodes": nodes }), || {
        let columns = FIELDS.iter().filter(|(_, shown, _)| *shown != InDetails);
        let columns: Vec<_> = columns.map(|(name, _, value)| (*name, *value)).collect();
        print::list(&columns, &nodes)
    })
}

async fn find(ctx: &Ctx, id: i64) -> Result<NodeDetails, Failure> {
    let found = status::find_node(ctx, id, LAST_EVENTS).await?;
    Ok(found.ok_or(OperatorError::UnknownNode(id))?)
}

fn shown(details: &NodeDetails) -> String {
    let fields = FIELDS.iter().filter(|(_, shown, _)| *shown != InLists);
    let mut lines: Vec<_> = fields
        .map(|(name, _, value)| (*name, value(&details.node)))
        .collect();
    let mut data = details.data.clone();
    let error = data.shift_remove("error").unwrap_or_default();
    for (name, value) in &data {
        lines.push(("data", print::plain(&format!("{name}: {value}"))));
    }
    for member in ["failed_at", "detail", "log"] {
        let text = error.get(member).and_then(serde_json::Value::as_str);
        let text = text.unwrap_or_default().lines();
        lines.extend(text.map(|line| ("error", print::plain(line))));
    }
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name:12} {value}\n"));
    let lines: String = lines.collect();
    format!("{lines}\n{}", print::events(&details.events, false))
}
