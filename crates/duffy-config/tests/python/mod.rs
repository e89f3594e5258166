//! Runs scripts in a real Python, for tests that compare with it.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helper: panics are its way to fail"
)]
#![expect(clippy::disallowed_types, reason = "tests start programs")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Returns the interpreter, which needs the modules PyYAML and Jinja2.
fn interpreter() -> String {
    std::env::var("DUFFY_TEST_PYTHON").unwrap_or_else(|_| {
        panic!(
            "set DUFFY_TEST_PYTHON to a Python interpreter that has the modules PyYAML and Jinja2 \
             (python3 -m venv …, pip install pyyaml jinja2): this test compares with them"
        )
    })
}

/// Runs a script with JSON on its standard input, and reads JSON from its standard output.
pub fn ask(script: &str, input: &Value) -> Value {
    let interpreter = interpreter();
    let mut child = Command::new(&interpreter)
        .args(["-c", script])
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("DUFFY_TEST_PYTHON={interpreter}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let text = input.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(
        output.status.success(),
        "{interpreter} failed: {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).unwrap()
}
