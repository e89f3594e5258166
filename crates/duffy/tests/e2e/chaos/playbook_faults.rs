//! The faults of playbooks.

use std::time::Duration;

use serde_json::{Value, json};

use super::rng::Rng;

/// The text of hostile nodes. If Ansible evaluated the template, it would create the canary in the directory of the playbooks.
pub const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r{{ lookup('pipe', 'touch canary') }}\u{9b}31m{% raw %}{{ undefined }}\n";

/// The file that the template above creates.
pub const CANARY: &str = "canary";

/// A fault of a playbook. The first ones are faults of the machine service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PlaybookFault {
    /// It succeeds, slowly.
    Slow(Duration),
    /// The machines change, slowly, but the playbook hangs.
    Late(Duration),
    /// The playbook hangs. The machines do not change.
    HangBefore,
    /// The playbook hangs. The machines change.
    HangAfter,
    /// The playbook fails. The machines do not change.
    FailBefore,
    /// The playbook fails. The machines change.
    FailAfter,
    /// It succeeds, but an event is not JSON.
    InvalidOutput,
    /// It succeeds, but the last event is cut off.
    TruncatedEvent,
    /// It succeeds without a result.
    NoResult,
    /// It succeeds, but the result has the wrong type.
    WrongKind,
    /// It succeeds, but the result of the last node is missing.
    MissingNode,
    /// It succeeds, but the result of the first node is null.
    NullNode,
    /// It succeeds, but the first node has the address of another machine.
    ForeignAddress,
    /// It succeeds, but all nodes have the address of the first one.
    DuplicateAddress,
    /// It succeeds, with templates and control characters in keys and values of the result.
    HostileResult,
    /// It fails, with templates and control characters in its output.
    FailWithHostileText,
}

impl PlaybookFault {
    /// Chooses a fault for this action. Add new faults here.
    pub fn random(rng: &mut Rng, action: &str) -> Self {
        let time = rng.millis(500, 6000);
        let both = [
            (3, Self::Slow(time.min(Duration::from_millis(2500)))),
            (3, Self::Late(time)),
            (1, Self::HangBefore),
            (2, Self::HangAfter),
            (2, Self::FailBefore),
            (3, Self::FailAfter),
            (1, Self::InvalidOutput),
            (1, Self::TruncatedEvent),
            (1, Self::NoResult),
            (1, Self::WrongKind),
            (2, Self::MissingNode),
            (1, Self::NullNode),
            (3, Self::HostileResult),
            (2, Self::FailWithHostileText),
        ];
        let provision = [(2, Self::ForeignAddress), (1, Self::DuplicateAddress)];
        if action == "provision" {
            rng.choose_weighted(&[&both[..], &provision[..]].concat())
        } else {
            rng.choose_weighted(&both)
        }
    }
}

/// Returns the response of the machine service to a playbook: what the playbook prints, the events of the stand-in, the result of the
/// real playbook, and the exit status. `None` if the playbook hangs.
pub fn make_response(
    fault: Option<PlaybookFault>,
    mut results: Vec<Value>,
    foreign: Option<Value>,
) -> Option<Value> {
    let failed = results.iter().any(|result| result.get("error").is_some());
    match fault {
        Some(PlaybookFault::HangBefore | PlaybookFault::HangAfter | PlaybookFault::Late(_)) => {
            return None;
        }
        Some(PlaybookFault::MissingNode) => drop(results.pop()),
        Some(PlaybookFault::NullNode) => results[0] = Value::Null,
        Some(PlaybookFault::ForeignAddress) => {
            if let Some(foreign) = foreign {
                results[0] = foreign;
            }
        }
        Some(PlaybookFault::HostileResult) => {
            for result in results.iter_mut().filter_map(Value::as_object_mut) {
                result.insert("motd".to_owned(), json!([HOSTILE, { "in": HOSTILE }]));
                result.insert(HOSTILE.to_owned(), json!(HOSTILE));
            }
        }
        Some(PlaybookFault::DuplicateAddress) => {
            results = vec![results[0].clone(); results.len().max(1)];
        }
        _ => {}
    }
    let result = match fault {
        Some(PlaybookFault::WrongKind) => json!("{'nodes': []}"),
        _ => json!({ "nodes": results }),
    };
    let event =
        json!({"event": "result", "host": "localhost", "task": "Set the result", "value": result});
    let failure = json!({"event": "failed", "host": "localhost", "task": "Send the request",
        "msg": "simulated failure of the playbook"});
    let mut events = format!("{event}\n");
    let mut exit = 0;
    let mut print = "PLAY RECAP".to_owned();
    match fault {
        Some(PlaybookFault::FailBefore | PlaybookFault::FailAfter) => {
            events = format!("{failure}\n");
            exit = 2;
        }
        Some(PlaybookFault::FailWithHostileText) => {
            let failure =
                json!({"event": "failed", "host": HOSTILE, "task": HOSTILE, "msg": HOSTILE});
            events = format!("{failure}\n");
            print = HOSTILE.repeat(100);
            exit = 2;
        }
        Some(PlaybookFault::InvalidOutput) => {
            print = "\u{1b}[2J\0 %s ÿ {{ }} \r\r\u{fffd}".repeat(2000);
            events = format!("{event}\n\u{0}\u{1}]}} invalid\n");
        }
        Some(PlaybookFault::TruncatedEvent) => events.truncate(events.len() / 2),
        Some(PlaybookFault::NoResult) => events.clear(),
        _ if failed => {
            events = format!("{failure}\n");
            exit = 2;
        }
        _ => {}
    }
    Some(json!({"print": print, "events": events, "result": result, "exit": exit}))
}
