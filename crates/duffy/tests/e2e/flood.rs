//! Floods of invalid input: Duffy refuses it, serves other clients, and limits its memory.

mod bodies;
mod connections;
mod fields;
mod readers;

use std::fs;

use crate::support::{Lab, Pool, Program};

/// The maximum growth of a server in KiB. A thousand connections have 64 KiB for a header each (64 MiB), 16 large bodies and what is
/// parsed from them a few MiB each (64 MiB), small bodies 16 KiB each (16 MiB). The allocator uses the rest.
const MAX_GROWTH: u64 = 192 * 1024;

/// Returns a value from /proc/PID/status in KiB.
fn memory(program: &Program, figure: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(figure));
    let digits = line.unwrap().split_whitespace().nth(1);
    digits.unwrap().parse().unwrap()
}

/// Checks that the peak memory of a server is not much larger than its initial memory.
fn assert_bounded(program: &Program, before: u64) {
    let most = memory(program, "VmHWM:");
    assert!(
        most < before + MAX_GROWTH,
        "it grew from {before} to {most} KiB"
    );
}

/// Starts a server on PostgreSQL without a worker, and warms it up. Returns its memory, too.
fn serve() -> (Lab, Program, u64) {
    let pool = Pool::simulated("pool", 1, &serde_json::json!({}));
    let lab = Lab::on_postgres(&[pool], &serde_json::json!({}));
    let serve = lab.start(&["serve"]);
    lab.tenant().get("pools");
    let before = memory(&serve, "VmRSS:");
    (lab, serve, before)
}
