//! Compares Duffy with the Python original, and with what SSH and PostgreSQL allow: `make bench`.
//!
//! Environment variables: `QUICK=1` leaves out the slow rows; `ROWS` lists the groups of rows to measure and only prints them, `flames`
//! records the flame graphs.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark fails by panicking"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its figures and its progress"
)]
#![expect(clippy::disallowed_types, reason = "benchmarks start programs")]

mod charts;
mod children;
mod figures;
mod flames;
mod installation;
mod load;
mod machines;
mod programs;
mod report;
mod rig;
mod rows;
mod yardsticks;

/// The environment of the end-to-end tests.
#[path = "../../tests/e2e"]
mod tests {
    #[expect(dead_code, unused_imports, reason = "the tests use more of it")]
    pub mod support;
}

use std::time::Instant;

use figures::Results;
use rig::Rig;
use tests::support;

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments
        .next_if(|first| first == children::HELPER)
        .is_some()
    {
        println!("{}", children::measure_child(arguments));
        return;
    }
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let quick = variable("QUICK").is_some_and(|value| value != "0");
    let wanted = variable("ROWS");
    let known: Vec<&str> = rows::GROUPS.iter().map(|(name, ..)| *name).collect();
    let names: Vec<&str> = wanted
        .iter()
        .flat_map(|text| text.split_whitespace())
        .collect();
    for name in &names {
        let is_known = known.contains(name) || *name == "flames";
        assert!(
            is_known,
            "ROWS has {name:?}; the rows are {}, flames",
            known.join(", ")
        );
    }

    let rig = Rig::start(quick);
    let mut results = Results::default();
    for (name, is_slow, measure) in rows::GROUPS {
        let is_wanted = if names.is_empty() {
            !(quick && is_slow)
        } else {
            names.contains(&name)
        };
        if !is_wanted {
            continue;
        }
        let (start, before) = (Instant::now(), results.rows.len());
        eprintln!("bench: {name}");
        measure(&rig, &mut results);
        eprintln!("bench: {name} took {:.0} s", start.elapsed().as_secs_f64());
        for row in &results.rows[before..] {
            report::print(row);
        }
    }
    if names.contains(&"flames") || (names.is_empty() && !quick) {
        flames::measure(&rig);
    }
    if names.is_empty() {
        report::write(&results, quick);
    }
}
