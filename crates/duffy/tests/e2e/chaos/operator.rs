//! Somebody with the operators' commands, who interferes: holds nodes, takes them out, has them repaired, drains pools.
//! What it began it undoes in the end.

use std::time::{Duration, Instant};

use super::base::Base;
use super::dice::Dice;
use super::record::{Finding, Record};
use super::stage::POOLS;
use crate::support::{Duffy, eventually};

/// Nodes that are not retired: number, and whether they are registered.
const NODES: &str = "SELECT CAST(id AS TEXT), CASE WHEN reusable THEN 'yes' ELSE '' END \
    FROM nodes WHERE retired_at IS NULL ORDER BY id";
/// How long the last commands may take to succeed.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub struct Operator<'a> {
    duffy: Duffy,
    base: Base,
    dice: Dice,
    record: &'a Record,
    /// The commands that undo, and when.
    undo: Vec<(Instant, Vec<String>)>,
}

impl<'a> Operator<'a> {
    pub fn new(duffy: Duffy, base: Base, seed: u64, record: &'a Record) -> Self {
        Self {
            duffy,
            base,
            dice: Dice::new(seed, "operator"),
            record,
            undo: Vec::new(),
        }
    }

    /// Goes on until it is time to stop.
    pub fn run(&mut self) {
        loop {
            let pause = self.dice.millis(1500, 6000);
            if self.record.wait(pause) {
                return;
            }
            let now = Instant::now();
            let due: Vec<_> = self.undo.extract_if(.., |(at, _)| *at <= now).collect();
            for (_, command) in due {
                if !self.command(&command) {
                    self.undo.push((now, command));
                }
            }
            self.interfere();
        }
    }

    /// Undoes what is left to be undone. Nothing else is wrong any more.
    pub fn settle(&mut self) {
        for (_, command) in std::mem::take(&mut self.undo) {
            eventually(PATIENCE, "an operator's command", || {
                self.command(&command)
                    .then_some(())
                    .ok_or_else(|| command.join(" "))
            });
        }
    }

    fn interfere(&mut self) {
        let rows = self.base.ask(NODES).unwrap_or_default();
        if rows.is_empty() {
            return;
        }
        let row = &rows[self.dice.below(rows.len())];
        let (node, is_registered) = (row[0].as_str(), !row[1].is_empty());
        let pool = self.dice.pick(&POOLS).name;
        let (command, undo) = match self.dice.below(8) {
            0..3 => (
                vec!["hold-node", node],
                vec!["hold-node", "--release", node],
            ),
            3..5 => (vec!["repair-node", node], vec![]),
            5 => (vec!["drain-pool", pool], vec!["resume-pool", pool]),
            // Of registered ones there would be no more after a while.
            _ if is_registered => return,
            _ => (vec!["retire-node", node], vec![]),
        };
        let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect();
        let command: Vec<String> = owned(command);
        let undo: Vec<String> = owned(undo);
        self.command(&command);
        // It may have been done though it seems to have failed.
        if !undo.is_empty() {
            let later = self.dice.millis(1000, 8000);
            self.undo.push((Instant::now() + later, undo));
        }
    }

    /// Whether it has done what it was to do, or there is nothing to do any more.
    fn command(&self, words: &[String]) -> bool {
        let mut arguments = vec!["admin"];
        arguments.extend(words.iter().map(String::as_str));
        arguments.extend(["--reason", "chaos"]);
        let output = self.duffy.run(&arguments);
        let said = output.stderr.trim();
        let command = words.join(" ");
        self.record
            .note(&format!("operator: {command}: {} {said}", output.code));
        let kind = &words[0];
        self.record
            .count(&format!("operator: {kind}: {}", output.code));
        if !matches!(output.code, 0 | 1) {
            let what = format!("duffy admin {command}: {output:?}");
            self.record.find(Finding::new(what));
        }
        // A node is gone by then, or lets be released only once.
        let over = ["not held", "is retired", "neither drained"];
        output.code == 0 || over.iter().any(|words| said.contains(words))
    }
}
