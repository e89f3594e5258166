//! The invariants of ARCHITECTURE.md that the compiler does not see, checked on the sources of the whole workspace.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod manifest;
mod rules;
mod rules_can_fail;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::Source;
use walkdir::WalkDir;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

/// All files below `crates` of this name or ending, with their paths from the root of the checkout.
fn files(ending: &str) -> Vec<(String, String)> {
    let root = checkout();
    let crates = WalkDir::new(root.join("crates")).sort_by_file_name();
    let found: Vec<_> = crates
        .into_iter()
        .filter_entry(|entry| entry.file_name() != "target")
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file() && path.to_str().unwrap().ends_with(ending))
        .map(|path| {
            let name = path
                .strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(found.len() > 6, "there is more than {found:?} to check");
    found
}

fn assert_none(broken: &[String]) {
    assert!(
        broken.is_empty(),
        "house rules are broken (see ARCHITECTURE.md):\n{}",
        broken.join("\n")
    );
}

#[test]
fn sources_keep_the_rules() {
    let broken: Vec<String> = files(".rs")
        .iter()
        .flat_map(|(path, text)| rules::check(&Source::parse(path, text)))
        .collect();
    assert_none(&broken);
}

#[test]
fn crates_depend_one_way() {
    let broken: Vec<String> = files("/Cargo.toml")
        .iter()
        .flat_map(|(path, text)| manifest::check(path, text))
        .collect();
    assert_none(&broken);
}
