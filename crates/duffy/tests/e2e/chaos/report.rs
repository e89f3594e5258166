//! The report of a run: counters, and for findings the schedule, the rows and the logs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::checks::rows_of;
use super::environment::Environment;
use super::faults::Schedule;
use super::log::{Finding, Log};
use super::playbook_faults::CANARY;

/// The maximum number of log lines about findings.
const LINES: usize = 150;

/// See the module.
pub struct Report<'a> {
    pub engine: &'a str,
    pub seed: u64,
    pub schedule: &'a Schedule,
    pub log: &'a Log,
    pub environment: &'a Environment,
}

impl Report<'_> {
    /// Prints the report. Panics if there are findings.
    pub fn print(&self) {
        self.find_panics();
        self.find_hostile_text();
        let findings = self.log.findings();
        eprintln!(
            "---- chaos on {}, SEED={}: counters",
            self.engine, self.seed
        );
        let mut counts = self.log.counts();
        counts.extend(self.environment.machines.counts());
        for (what, count) in &counts {
            eprintln!("{count:6} {what}");
        }
        if findings.is_empty() {
            return;
        }
        eprintln!("---- schedule");
        for line in self.schedule.lines() {
            eprintln!("{line}");
        }
        eprintln!("---- rows");
        for line in rows_of(&self.environment.database, &findings) {
            eprintln!("{line}");
        }
        let kept = self.keep_logs();
        eprintln!("---- lines of the logs in {}", kept.display());
        let lines = self.lines_about(&findings);
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            eprintln!("{line}");
        }
        eprintln!("---- findings");
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
        let directories = [self.environment.site.scratch(), &self.environment.scratch];
        let mut logs: Vec<PathBuf> = directories
            .iter()
            .flat_map(|scratch| fs::read_dir(scratch.path()).unwrap().flatten())
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        logs.sort();
        logs
    }

    /// Reports the panics in the logs of processes.
    fn find_panics(&self) {
        for log in self.logs() {
            let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
            let panics = text.lines().filter(|line| line.contains("panicked at"));
            let panics: BTreeSet<&str> = panics.collect();
            for line in panics {
                let what = format!("{}: {line}", log.display());
                self.log.report(Finding::new(what));
            }
        }
    }

    /// Reports control characters in logs, and templates of nodes that were evaluated.
    fn find_hostile_text(&self) {
        let of_duffy = |log: &&PathBuf| {
            let name = log.file_name().unwrap().to_string_lossy();
            name.starts_with("serve-") || name.starts_with("worker-")
        };
        for log in self.logs().iter().filter(of_duffy) {
            let text = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
            let control = |char: char| char.is_control() && char != '\n';
            if let Some(line) = text.lines().find(|line| line.contains(control)) {
                let what = format!("{}: control characters: {line:?}", log.display());
                self.log.report(Finding::new(what));
            }
        }
        let directories = [
            self.environment.site.scratch().path(),
            &self.environment.playbooks(),
        ];
        for directory in directories {
            if directory.join(CANARY).exists() {
                let what = format!(
                    "a template of a node was evaluated in {}",
                    directory.display()
                );
                self.log.report(Finding::new(what));
            }
        }
    }

    /// Copies the logs to a directory that outlives the test.
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

    /// Returns the log lines about the nodes and sessions of findings, sorted by time.
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
        // Lines start with the time.
        lines.sort();
        lines
            .into_iter()
            .map(|(line, name)| format!("{name:9} {line}"))
            .collect()
    }
}
