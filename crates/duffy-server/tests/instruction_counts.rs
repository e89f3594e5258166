//! How many instructions hot functions take, as callgrind counts them. Times depend on the machine; counts hardly do.
//!
//! The code is not optimized, as in all tests. The counts show functions that do more than before, for example a loop in
//! a loop. `cargo bench` shows times.
#![expect(clippy::disallowed_types, reason = "tests start programs")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests may panic"
)]

#[path = "../benches/hot_functions/paths.rs"]
mod paths;

use std::hint::black_box;
use std::process::Command;
use std::{env, fs};

/// Set in the process that callgrind observes.
const OBSERVED: &str = "DUFFY_TEST_OBSERVED";

/// A function may take this many times the recorded count. The C library, the processor's features and the seeds of hash
/// tables change the count by a few percent.
const MARGIN: f64 = 1.3;

/// The only function whose instructions are counted, with what it calls.
#[inline(never)]
fn counted_part(run: &mut dyn FnMut()) {
    run();
}

/// Checks the count of what `run` does in the test named `test`.
fn check(test: &str, recorded: u64, run: &mut dyn FnMut()) {
    if env::var_os(OBSERVED).is_some() {
        return counted_part(run);
    }
    let directory = tempfile::tempdir().unwrap();
    let counts = directory.path().join("counts");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_part*"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(env::current_exe().unwrap())
        .args(["--exact", test])
        .env(OBSERVED, "1")
        .output()
        .expect("this test needs valgrind: run make test-deps");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let counts = fs::read_to_string(counts).unwrap();
    let total = counts
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.and_then(|total| total.parse().ok()).unwrap_or(0);
    assert!(
        total > recorded / 2,
        "only {total} instructions: correct the recorded count"
    );
    let limit = (recorded as f64 * MARGIN) as u64;
    assert!(
        total <= limit,
        "{total} instructions, {recorded} recorded, {limit} allowed. Make the function faster, or record \
         {total} if the new work is necessary."
    );
}

#[test]
fn loading_a_configuration_of_200_pools() {
    let text = paths::configuration(200);
    check(
        "loading_a_configuration_of_200_pools",
        148_300_000,
        &mut || {
            black_box(paths::load_configuration(&text));
        },
    );
}

#[test]
fn validating_a_request_for_100_pools() {
    let body = paths::session_body(100);
    check("validating_a_request_for_100_pools", 4_285_000, &mut || {
        black_box(paths::read_session(&body));
    });
}

#[test]
fn building_a_list_of_1000_nodes() {
    let mut rows = paths::node_rows(1000);
    check("building_a_list_of_1000_nodes", 142_000_000, &mut || {
        black_box(paths::list_nodes(std::mem::take(&mut rows)));
    });
}
