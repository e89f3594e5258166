//! Bad input, and much of it: it is refused, others are served meanwhile, and memory stays bounded.

mod bodies;
mod connections;
mod fields;
mod readers;

use std::fs;

use crate::support::{Lab, Pool, Program};

/// How many KiB a server may grow by, whatever clients send. A thousand connections have 64 KiB for a header each
/// (64 MiB), 16 large bodies a few MiB each with what they are read into (64 MiB), small ones 16 KiB (16 MiB); the rest
/// is the allocator's.
const MOST_GROWTH: u64 = 192 * 1024;

/// A figure of a process's memory in KiB.
fn memory(program: &Program, figure: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(figure));
    let digits = line.unwrap().split_whitespace().nth(1);
    digits.unwrap().parse().unwrap()
}

/// Fails when a server has needed much more memory at any time than it had to begin with.
fn assert_bounded(program: &Program, before: u64) {
    let most = memory(program, "VmHWM:");
    assert!(
        most < before + MOST_GROWTH,
        "it grew from {before} to {most} KiB"
    );
}

/// A server on PostgreSQL without a worker, warmed up, and its memory.
fn serve() -> (Lab, Program, u64) {
    let pool = Pool::simulated("pool", 1, &serde_json::json!({}));
    let lab = Lab::on_postgres(&[pool], &serde_json::json!({}));
    let serve = lab.start(&["serve"]);
    lab.tenant().get("pools");
    let before = memory(&serve, "VmRSS:");
    (lab, serve, before)
}
