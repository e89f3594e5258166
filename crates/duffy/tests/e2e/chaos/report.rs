//! What a run says at its end: what happened in it, and, where something was found, all that helps to find out why.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::checks::rows_of;
use super::faults::Schedule;
use super::mishap::CANARY;
use super::record::{Finding, Record};
use super::stage::Stage;

/// How many lines of logs about the nodes and sessions of findings are printed.
const LINES: usize = 150;

/// See the module.
pub struct Report<'a> {
    pub engine: &'a str,
    pub seed: u64,
    pub schedule: &'a Schedule,
    pub record: &'a Record,
    pub stage: &'a Stage,
}

impl Report<'_> {
    /// Prints it, and fails when something was found.
    pub fn print(&self) {
        self.look_into_logs();
        self.look_for_hostile_text();
        let findings = self.record.findings();
        eprintln!(
            "---- chaos on {}, SEED={}: what happened",
            self.engine, self.seed
        );
        let mut counts = self.record.counts();
        counts.extend(self.stage.room.counts());
        for (what, count) in &counts {
            eprintln!("{count:6} {what}");
        }
        if findings.is_empty() {
            return;
        }
        eprintln!("---- the schedule");
        for line in self.schedule.lines() {
            eprintln!("{line}");
        }
        eprintln!("---- rows");
        for line in rows_of(&self.stage.base, &findings) {
            eprintln!("{line}");
        }
        let kept = self.keep_logs();
        eprintln!("---- logs about these, of {}", kept.display());
        let lines = self.lines_about(&findings);
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            eprintln!("{line}");
        }
        eprintln!("---- found");
        for finding in &findings {
            eprintln!("* {}", finding.what);
        }
        panic!(
            "{} finding(s) on {} with SEED={}; logs are in {}",
            findings.len(),
            self.engine,
            self.seed,
            kept.display()
        );
    }

    fn logs(&self) -> Vec<PathBuf> {
        let directories = [self.stage.site.scratch(), &self.stage.room_scratch];
        let mut logs: Vec<PathBuf> = directories
            .iter()
            .flat_map(|scratch| fs::read_dir(scratch.path()).unwrap().flatten())
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        logs.sort();
        logs
    }

    /// A panic of a process is found whatever it did not break.
    fn look_into_logs(&self) {
        for log in self.logs() {
            let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
            let panics = text.lines().filter(|line| line.contains("panicked at"));
            let panics: BTreeSet<&str> = panics.collect();
            for line in panics {
                let what = format!("{}: {line}", log.display());
                self.record.find(Finding::new(what));
            }
        }
    }

    /// What nodes, playbooks and clients say reaches no terminal, and is never run.
    fn look_for_hostile_text(&self) {
        let of_duffy = |log: &&PathBuf| {
            let name = log.file_name().unwrap().to_string_lossy();
            name.starts_with("serve-") || name.starts_with("worker-")
        };
        for log in self.logs().iter().filter(of_duffy) {
            let text = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
            let control = |char: char| char.is_control() && char != '\n';
            if let Some(line) = text.lines().find(|line| line.contains(control)) {
                let what = format!("{}: control characters: {line:?}", log.display());
                self.record.find(Finding::new(what));
            }
        }
        let directories = [self.stage.site.scratch().path(), &self.stage.playbooks()];
        for directory in directories {
            if directory.join(CANARY).exists() {
                let what = format!("a template of a node was run in {}", directory.display());
                self.record.find(Finding::new(what));
            }
        }
    }

    /// Copies the logs to where they outlive the test.
    fn keep_logs(&self) -> PathBuf {
        let name = format!("chaos-{}-{}", self.engine, self.seed);
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::remove_dir_all(&kept).ok();
        fs::create_dir_all(&kept).unwrap();
        for log in self.logs() {
            fs::copy(&log, kept.join(log.file_name().unwrap())).unwrap();
        }
        fs::write(kept.join("schedule"), self.schedule.lines().join("\n")).unwrap();
        kept
    }

    /// What processes logged of the nodes and sessions of findings, in the order of time.
    fn lines_about(&self, findings: &[Finding]) -> Vec<String> {
        let mut words: BTreeSet<String> = BTreeSet::new();
        for finding in findings {
            words.extend(finding.nodes.iter().map(|id| format!("node.id={id}")));
            words.extend(finding.sessions.iter().map(|id| format!("session.id={id}")));
        }
        let named = |line: &str| {
            line.split([' ', '{', '}', ','])
                .any(|word| words.contains(word))
        };
        let mut lines = Vec::new();
        for log in self.logs() {
            let name = log.file_stem().unwrap().to_string_lossy().into_owned();
            let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
            let own = text.lines().filter(|line| named(line));
            lines.extend(own.map(|line| (line.to_owned(), name.clone())));
        }
        // They begin with the time.
        lines.sort();
        lines
            .into_iter()
            .map(|(line, name)| format!("{name:9} {line}"))
            .collect()
    }
}
