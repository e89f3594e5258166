//! An operator that holds, retires and repairs nodes and drains pools. At the end, it undoes its holds and drains.

use std::time::{Duration, Instant};

use super::database::Database;
use super::environment::POOLS;
use super::log::{Finding, Log};
use super::rng::Rng;
use crate::support::{Duffy, eventually};

/// Active nodes: id, and whether they are registered.
const NODES: &str = "SELECT CAST(id AS TEXT), CASE WHEN reusable THEN 'yes' ELSE '' END \
    FROM nodes WHERE retired_at IS NULL ORDER BY id";
/// The time limit for the commands at the end.
const TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
pub struct Operator<'a> {
    duffy: Duffy,
    database: Database,
    rng: Rng,
    log: &'a Log,
    /// The commands that undo others, and their times.
    undo: Vec<(Instant, Vec<String>)>,
}

impl<'a> Operator<'a> {
    pub fn new(duffy: Duffy, database: Database, seed: u64, log: &'a Log) -> Self {
        Self {
            duffy,
            database,
            rng: Rng::new(seed, "operator"),
            log,
            undo: Vec::new(),
        }
    }

    /// Runs commands until the run stops.
    pub fn run(&mut self) {
        loop {
            let pause = self.rng.millis(1500, 6000);
            if self.log.wait(pause) {
                return;
            }
            let now = Instant::now();
            let due: Vec<_> = self.undo.extract_if(.., |(at, _)| *at <= now).collect();
            for (_, command) in due {
                if !self.command(&command) {
                    self.undo.push((now, command));
                }
            }
            self.run_command();
        }
    }

    /// Runs the remaining undo commands, without faults.
    pub fn finish(&mut self) {
        for (_, command) in std::mem::take(&mut self.undo) {
            eventually(TIMEOUT, "an operator's command", || {
                self.command(&command)
                    .then_some(())
                    .ok_or_else(|| command.join(" "))
            });
        }
    }

    fn run_command(&mut self) {
        let rows = self.database.query(NODES).unwrap_or_default();
        if rows.is_empty() {
            return;
        }
        let row = &rows[self.rng.below(rows.len())];
        let (node, is_registered) = (row[0].as_str(), !row[1].is_empty());
        let pool = self.rng.choose(&POOLS).name;
        let (command, undo) = match self.rng.below(8) {
            0..3 => (
                vec!["hold-node", node],
                vec!["hold-node", "--release", node],
            ),
            3..5 => (vec!["repair-node", node], vec![]),
            5 => (vec!["drain-pool", pool], vec!["resume-pool", pool]),
            // Otherwise there would be no registered nodes after a while.
            _ if is_registered => return,
            _ => (vec!["retire-node", node], vec![]),
        };
        let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect();
        let command: Vec<String> = owned(command);
        let undo: Vec<String> = owned(undo);
        self.command(&command);
        // The command may have succeeded even if it reports a failure.
        if !undo.is_empty() {
            let later = self.rng.millis(1000, 8000);
            self.undo.push((Instant::now() + later, undo));
        }
    }

    /// Runs a command. Returns true if it succeeded or is no longer necessary.
    fn command(&self, words: &[String]) -> bool {
        let mut arguments = vec!["admin"];
        arguments.extend(words.iter().map(String::as_str));
        arguments.extend(["--reason", "chaos"]);
        let output = self.duffy.run(&arguments);
        let message = output.stderr.trim();
        let command = words.join(" ");
        self.log
            .write(&format!("operator: {command}: {} {message}", output.code));
        let kind = &words[0];
        self.log
            .count(&format!("operator: {kind}: {}", output.code));
        if !matches!(output.code, 0 | 1) {
            let what = format!("duffy admin {command}: {output:?}");
            self.log.report(Finding::new(what));
        }
        // The node is retired by now, or an earlier attempt succeeded.
        let unnecessary = ["not held", "is retired", "neither drained"];
        output.code == 0 || unnecessary.iter().any(|words| message.contains(words))
    }
}
