//! Runs the recorded command lines.

use duffy_server::db::migrate::Revision;
use serde_json::Value;

use super::pattern::{compare, fits_text};
use super::{Engine, WireSite, steps};

/// The newest revision of the original.
const THEIR_HEAD: &str = "6654d536b836";

#[test]
fn command_lines_match_the_recordings_on_postgresql() {
    replay(Engine::Postgres);
}

#[test]
fn command_lines_match_the_recordings_on_sqlite() {
    replay(Engine::Sqlite);
}

fn replay(engine: Engine) {
    let site = WireSite::new(engine);
    let (_server, _) = site.serve();
    let mut differing = Vec::new();
    for step in steps("cli.json") {
        let args = step["args"].as_array().unwrap().iter();
        let args: Vec<_> = args.map(|arg| arg.as_str().unwrap()).collect();
        let output = site.duffy().run(&args);
        let why = check(&step, output.code, &output.stdout, &output.stderr);
        if let Err(why) = why {
            differing.push(format!("duffy {}: {why}: {output:?}", args.join(" ")));
        }
    }
    assert!(
        differing.is_empty(),
        "{} differ:\n{}",
        differing.len(),
        differing.join("\n")
    );
}

/// Compares an output with the recorded one.
fn check(step: &Value, code: i32, stdout: &str, stderr: &str) -> Result<(), String> {
    let expect = &step["expect"];
    let also = step["any_of"].as_array().into_iter().flatten();
    if expect["exit"] != code && !also.clone().any(|other| *other == code) {
        return Err(format!("exit code {code}, not {}", expect["exit"]));
    }
    for (name, text) in [("stdout", stdout), ("stderr", stderr)] {
        let recorded = &expect[name];
        if step["loose"] == true {
            // Only checks whether there is output.
            let some = !text.trim().is_empty();
            if *recorded != some {
                return Err(format!("{name} has text: {some}, not {recorded}"));
            }
            continue;
        }
        // Duffy has newer revisions.
        let head = Revision::HEAD.id().unwrap();
        let recorded = recorded.as_str().unwrap().replace(THEIR_HEAD, head);
        let recorded = recorded.as_str();
        if name == "stdout" && step["json"] == true {
            compare_json(recorded, text).map_err(|why| format!("{name}{why}"))?;
        } else if !fits_text(recorded, text.strip_suffix('\n').unwrap_or(text)) {
            return Err(format!("{name} is not {recorded:?}"));
        }
    }
    Ok(())
}

/// Compares JSON, and its indentation of four spaces.
fn compare_json(recorded: &str, text: &str) -> Result<(), String> {
    let recorded = recorded.replace(" <id>", " \"<id>\"");
    let recorded: Value = serde_json::from_str(&recorded).unwrap();
    let value: Value = serde_json::from_str(text).map_err(|error| format!(": {error}"))?;
    if !text.starts_with("{\n    \"") {
        return Err(": not four spaces' indent".to_owned());
    }
    compare(&recorded, &value)
}
