//! Finds the machine's processes, for tests of what starts and ends them.

use std::time::{Duration, Instant};

/// A number that no other process has in its arguments, for `sleep`.
pub fn unique_sleep() -> String {
    let id = uuid::Uuid::new_v4().as_u128() % 1_000_000_000_000;
    format!("3600.{id:012}")
}

/// The running processes, without zombies, whose arguments contain this text.
pub fn find_processes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")
        .expect("these tests need /proc")
        .flatten()
    {
        // A zombie has no arguments, and a process may end during the search.
        let Ok(args) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let args = String::from_utf8_lossy(&args).replace('\0', " ");
        if entry.file_name() != std::process::id().to_string().as_str() && args.contains(text) {
            found.push(format!("{}: {args}", entry.path().display()));
        }
    }
    found
}

/// Waits until the condition holds. After half a minute it fails the test with the last state.
pub fn wait_until<T: std::fmt::Debug>(
    what: &str,
    mut look: impl FnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let state = look();
        if good(&state) {
            return state;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "waited for: {what}; got {state:?}"
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Waits until this many processes have the text in their arguments.
pub fn wait_for_processes(text: &str, count: usize) {
    wait_until(
        &format!("{count} processes with {text}"),
        || find_processes(text),
        |found| found.len() == count,
    );
}
