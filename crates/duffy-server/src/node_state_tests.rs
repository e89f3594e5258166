//! The rules fit together, and docs/node-states.md says what they are.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use indexmap::IndexMap;

use super::*;

#[test]
fn rules_keep_what_they_promise() {
    for transition in Transition::ALL {
        let rule = transition.rule();
        for from in rule.from {
            let to = rule.to.unwrap_or(*from);
            let ends = rule.lease == Effect::End;
            let context = format!("{transition:?} from {from}");
            if rule.lease == Effect::Set {
                assert!(
                    is_leased(to),
                    "{context}: nobody would work under the lease"
                );
            }
            // Where nobody works, no lease may stay.
            if is_leased(*from) && !is_leased(to) {
                assert!(ends, "{context}: the lease stays");
            }
            // Work is claimed only when nobody else is at it, and ended only by its owner, or by an operator.
            if rule.lease == Effect::Set && is_leased(*from) {
                assert_eq!(rule.requires, LeaseCheck::Free, "{context}");
            }
            if rule.requires == LeaseCheck::Own {
                assert!(is_leased(*from), "{context}: there is no lease to own");
            }
            assert!(
                *from != Done || to == Done,
                "{context}: what is done stays done"
            );
        }
        if rule.hold == Effect::End {
            assert_eq!(rule.held, Some(true), "{transition:?}");
        }
    }
}

#[test]
fn each_state_is_left_and_reached() {
    let rules = || Transition::ALL.iter().map(|transition| transition.rule());
    for state in NodeState::ALL {
        let reached = rules().any(|rule| rule.to == Some(state));
        assert!(reached || state == Unused, "{state} is never reached");
        let leaves =
            |rule: Rule| rule.from.contains(&state) && rule.to.is_some_and(|to| to != state);
        assert!(
            rules().any(leaves) || state == Done,
            "{state} is never left"
        );
    }
}

/// The table of ARCHITECTURE.md: who acts, and to which states it leads.
#[test]
fn the_overview_agrees() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let text = fs::read_to_string(path).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    for state in NodeState::ALL {
        let row = rows.iter().find(|row| row[0] == state.as_str());
        let row = row.unwrap_or_else(|| panic!("no row for {state}"));
        let who = match actor(state) {
            Actor::Nobody => "nobody",
            Actor::Worker => "a worker",
            Actor::Request => "the request",
            Actor::Session => "the tenant",
        };
        assert!(row[1].starts_with(who), "{state}: {row:?}");
        for to in NodeState::ALL.into_iter().filter(|to| *to != state) {
            let named = row[2..]
                .iter()
                .any(|cell| cell.contains(&format!("`{to}`")));
            let leads = |transition: &&Transition| {
                let rule = transition.rule();
                rule.from.contains(&state) && rule.to == Some(to)
            };
            let leads = Transition::ALL.iter().any(|each| leads(&each));
            assert!(leads || !named, "{state} does not lead to {to}");
        }
    }
}

fn states(states: &[NodeState]) -> String {
    let names: Vec<_> = states.iter().map(|state| format!("`{state}`")).collect();
    names.join(", ")
}

fn cause(cause: Cause) -> String {
    let text = serde_json::to_value(cause).unwrap();
    text.as_str().unwrap().to_owned()
}

/// The generated part of docs/node-states.md.
fn document() -> String {
    let mut text = String::from(
        "```mermaid\nstateDiagram-v2\n    [*] --> unused: registered\n    [*] --> provisioning: filled\n",
    );
    let mut arrows: IndexMap<_, Vec<String>> = IndexMap::new();
    for transition in Transition::ALL {
        let rule = transition.rule();
        for from in rule.from {
            if let Some(to) = rule.to.filter(|to| to != from) {
                let names = arrows.entry((*from, to)).or_default();
                names.push(format!("{transition:?}"));
            }
        }
    }
    for ((from, to), names) in arrows {
        writeln!(text, "    {from} --> {to}: {}", names.join(", ")).unwrap();
    }
    text.push_str("    done --> [*]\n```\n\n");
    text.push_str("| state | who acts |\n|---|---|\n");
    for state in NodeState::ALL {
        let who = match actor(state) {
            Actor::Nobody => "nobody",
            Actor::Worker => "a worker, under a lease",
            Actor::Request => "the request for a session, under a lease",
            Actor::Session => "the tenant, until the session ends",
        };
        writeln!(text, "| `{state}` | {who} |").unwrap();
    }
    text.push_str(
        "\n| transition | from | to | requires | lease | attempts | repairs | pause | cause in the history |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for transition in Transition::ALL {
        let rule = transition.rule();
        let to = rule.to.map_or("same".to_owned(), |to| format!("`{to}`"));
        let requires = [
            (rule.requires == LeaseCheck::Own).then_some("own lease"),
            (rule.requires == LeaseCheck::Free).then_some("no lease"),
            (rule.held == Some(false)).then_some("not held"),
            (rule.held == Some(true)).then_some("held"),
            (rule.reusable == Some(true)).then_some("reusable"),
            (rule.reusable == Some(false)).then_some("not reusable"),
        ];
        let requires: Vec<_> = requires.into_iter().flatten().collect();
        let word = |value: &dyn std::fmt::Debug| {
            let word = format!("{value:?}").to_lowercase();
            if word == "keep" { String::new() } else { word }
        };
        writeln!(
            text,
            "| `{transition:?}` | {} | {to} | {} | {} | {} | {} | {} | {} |",
            states(rule.from),
            requires.join(", "),
            word(&rule.lease),
            word(&rule.attempts),
            word(&rule.repairs),
            word(&rule.pause),
            cause(rule.cause),
        )
        .unwrap();
    }
    text
}

/// With `UPDATE_DOCS=1` it writes the document.
#[test]
fn the_document_says_what_the_rules_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/node-states.md");
    let found = fs::read_to_string(&path).unwrap();
    let mark = "<!-- generated from node_state.rs -->\n\n";
    let (before, generated) = found.split_once(mark).unwrap();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{mark}{}", document())).unwrap();
    } else {
        assert_eq!(
            generated,
            document(),
            "run UPDATE_DOCS=1 cargo test -p duffy-server the_document_says"
        );
    }
}
