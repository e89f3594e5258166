//! The memory of processes, and a helper process that measures a child.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

use crate::programs::output_of;
use crate::support::Program;

/// The first argument of the helper.
pub const HELPER: &str = "--measure-child";

/// What a child needed.
pub struct Run {
    pub seconds: f64,
    pub max_rss_mb: f64,
}

/// Runs a command in the helper process, which is small: the system counts the memory of the parent before `exec` as the child's.
pub fn run_measured(command: &Command) -> Run {
    let mut helper = Command::new(std::env::current_exe().unwrap());
    helper
        .arg(HELPER)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => helper.env(name, value),
            None => helper.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        helper.current_dir(directory);
    }
    let output = output_of(&mut helper);
    let (seconds, size) = output.split_once(' ').unwrap();
    Run {
        seconds: seconds.parse().unwrap(),
        max_rss_mb: size.parse::<f64>().unwrap() / 1024.0,
    }
}

/// The helper: runs a command, and prints its time in seconds and its maximum resident size in kB.
pub fn measure_child(mut arguments: impl Iterator<Item = String>) -> String {
    let mut command = Command::new(arguments.next().expect("a program"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}: {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    format!("{seconds} {}", usage.max_rss())
}

/// Returns the memory of programs and their children in MB: their proportional share of the resident pages.
pub fn memory_of(programs: &[Program]) -> f64 {
    let groups: Vec<i32> = programs.iter().map(Program::pid).collect();
    let mut kilobytes = 0.0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name in parentheses can contain spaces. State, parent and group follow.
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        let group = rest.split(' ').nth(2).and_then(|group| group.parse().ok());
        if group.is_none_or(|group: i32| !groups.contains(&group)) {
            continue;
        }
        let rollup = fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
        let share = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let share = share.and_then(|share| share.trim().split(' ').next());
        kilobytes += share
            .and_then(|share| share.parse::<f64>().ok())
            .unwrap_or_default();
    }
    kilobytes / 1024.0
}
