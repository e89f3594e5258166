//! Checks the invariants of ARCHITECTURE.md that the compiler, clippy and cargo-deny do not check.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cycles;
mod rules;
mod rules_can_fail;
mod source;

use std::fs;
use std::path::Path;

use source::Source;
use walkdir::WalkDir;

/// Returns all files below `crates` whose paths have this ending, with their paths from the root of the checkout.
fn files(ending: &str) -> Vec<(String, String)> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let found: Vec<_> = WalkDir::new(crates)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.file_name() != "target")
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file() && path.to_str().unwrap().ends_with(ending))
        .map(|path| {
            let name = path.strip_prefix(crates.parent().unwrap()).unwrap();
            (
                name.to_str().unwrap().to_owned(),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    assert!(found.len() > 6, "too few files: {found:?}");
    found
}

fn sources() -> Vec<Source> {
    let files = files(".rs");
    files
        .iter()
        .map(|(path, text)| Source::parse(path, text))
        .collect()
}

fn assert_none(violations: &[String]) {
    assert!(
        violations.is_empty(),
        "house rules are violated (see ARCHITECTURE.md):\n{}",
        violations.join("\n")
    );
}

#[test]
fn sources_follow_the_rules() {
    let violations: Vec<_> = sources().iter().flat_map(rules::check).collect();
    assert_none(&violations);
}

#[test]
fn there_are_no_cycles() {
    let cycles = cycles::find(&sources()).into_iter();
    let cycles: Vec<_> = cycles
        .map(|(name, uses)| format!("{name}\n{uses}"))
        .collect();
    assert_none(&cycles);
}

#[test]
fn manifests_inherit_the_lints_and_deny_toml_lists_the_crate() {
    let deny = include_str!("../../../../deny.toml");
    let violations: Vec<_> = files("/Cargo.toml")
        .iter()
        .flat_map(|(path, text)| rules::check_manifest(path, text, deny))
        .collect();
    assert_none(&violations);
}

/// A cause that nothing writes would be missing from the history without an error.
#[test]
fn every_cause_is_written() {
    let files = files(".rs");
    let (causes, others): (Vec<_>, Vec<_>) = files
        .iter()
        .filter(|(path, _)| path.starts_with("crates/duffy-server/src/"))
        .partition(|(path, _)| path.ends_with("/cause.rs"));
    let lines = causes.iter().flat_map(|(_, text)| text.lines());
    let variants = lines.filter_map(|line| line.strip_prefix("    ")?.strip_suffix(','));
    let variants: Vec<_> = variants
        .filter(|name| name.chars().all(char::is_alphanumeric))
        .collect();
    assert!(variants.len() > 20, "{variants:?}");
    let is_written = |name: &str| {
        let mut words = others
            .iter()
            .flat_map(|(_, text)| text.split(|c: char| !c.is_alphanumeric()));
        words.any(|word| word == name)
    };
    let unused = variants.into_iter().filter(|name| !is_written(name));
    let unused = unused.map(|name| format!("Cause::{name} is written nowhere"));
    assert_none(&unused.collect::<Vec<_>>());
}
