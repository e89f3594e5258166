//! What goes wrong with playbooks.

use std::time::Duration;

use serde_json::{Value, json};

use super::dice::Dice;

/// What a hostile tenant has its node say. Ansible would run the template in the directory of the playbooks.
pub const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r{{ lookup('pipe', 'touch canary') }}\u{9b}31m{% raw %}{{ undefined }}\n";

/// What the template above leaves behind where it runs.
pub const CANARY: &str = "canary";

/// One of the ways in which a playbook goes wrong. Those of the machine room's side come first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mishap {
    /// It takes long, and works.
    Slow(Duration),
    /// It is done, late, and the playbook never learns of it.
    Late(Duration),
    /// The playbook waits for ever; nothing was done.
    HangBefore,
    /// The same, and it was done.
    HangAfter,
    /// It fails, and nothing was done.
    FailBefore,
    /// It fails, and it was done.
    FailAfter,
    /// It works, but what it says of it is no JSON.
    Rubbish,
    /// It works, but the last event is cut off.
    HalfAnEvent,
    /// It works, and says nothing.
    NoResult,
    /// It works, and the result is of another kind.
    WrongKind,
    /// It works, and says nothing of the last node.
    LeaveOut,
    /// It works, and says null of the first node.
    Null,
    /// It works, and gives the first node the address of another one.
    Foreign,
    /// It works, and gives all nodes the address of the first one.
    Twice,
    /// It works, and its result has templates and control characters in keys and values.
    Hostile,
    /// It fails, and so does what it says.
    FailHostile,
}

impl Mishap {
    /// Rolls for one that can happen to this action. Here new ones are put in.
    pub fn roll(dice: &mut Dice, action: &str) -> Self {
        let time = dice.millis(500, 6000);
        let both = [
            (3, Self::Slow(time.min(Duration::from_millis(2500)))),
            (3, Self::Late(time)),
            (1, Self::HangBefore),
            (2, Self::HangAfter),
            (2, Self::FailBefore),
            (3, Self::FailAfter),
            (1, Self::Rubbish),
            (1, Self::HalfAnEvent),
            (1, Self::NoResult),
            (1, Self::WrongKind),
            (2, Self::LeaveOut),
            (1, Self::Null),
            (3, Self::Hostile),
            (2, Self::FailHostile),
        ];
        let provision = [(2, Self::Foreign), (1, Self::Twice)];
        if action == "provision" {
            dice.weigh(&[&both[..], &provision[..]].concat())
        } else {
            dice.weigh(&both)
        }
    }
}

/// What a playbook says: what it prints, its events for the stand-in, its result for the real one, its exit status.
/// `None` when it says nothing until it is killed.
pub fn spoil(
    mishap: Option<Mishap>,
    mut results: Vec<Value>,
    foreign: Option<Value>,
) -> Option<Value> {
    let failed = results.iter().any(|result| result.get("error").is_some());
    match mishap {
        Some(Mishap::HangBefore | Mishap::HangAfter | Mishap::Late(_)) => return None,
        Some(Mishap::LeaveOut) => drop(results.pop()),
        Some(Mishap::Null) => results[0] = Value::Null,
        Some(Mishap::Foreign) => {
            if let Some(foreign) = foreign {
                results[0] = foreign;
            }
        }
        Some(Mishap::Hostile) => {
            for result in results.iter_mut().filter_map(Value::as_object_mut) {
                result.insert("motd".to_owned(), json!([HOSTILE, { "in": HOSTILE }]));
                result.insert(HOSTILE.to_owned(), json!(HOSTILE));
            }
        }
        Some(Mishap::Twice) => results = vec![results[0].clone(); results.len().max(1)],
        _ => {}
    }
    let result = match mishap {
        Some(Mishap::WrongKind) => json!("{'nodes': []}"),
        _ => json!({ "nodes": results }),
    };
    let event = json!({"event": "result", "host": "localhost", "task": "Tell", "value": result});
    let failure = json!({"event": "failed", "host": "localhost", "task": "Ask",
        "msg": "simulated failure of the playbook"});
    let mut events = format!("{event}\n");
    let mut exit = 0;
    let mut print = "PLAY RECAP".to_owned();
    match mishap {
        Some(Mishap::FailBefore | Mishap::FailAfter) => {
            events = format!("{failure}\n");
            exit = 2;
        }
        Some(Mishap::FailHostile) => {
            let failure =
                json!({"event": "failed", "host": HOSTILE, "task": HOSTILE, "msg": HOSTILE});
            events = format!("{failure}\n");
            print = HOSTILE.repeat(100);
            exit = 2;
        }
        Some(Mishap::Rubbish) => {
            print = "\u{1b}[2J\0 %s ÿ {{ }} \r\r\u{fffd}".repeat(2000);
            events = format!("{event}\n\u{0}\u{1}]}} nonsense\n");
        }
        Some(Mishap::HalfAnEvent) => events.truncate(events.len() / 2),
        Some(Mishap::NoResult) => events.clear(),
        _ if failed => {
            events = format!("{failure}\n");
            exit = 2;
        }
        _ => {}
    }
    Some(json!({"print": print, "events": events, "result": result, "exit": exit}))
}
