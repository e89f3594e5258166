//! Runs the client of the Python original with Duffy's server, and compares it with Duffy's client.

use std::process::Command;

use serde_json::Value;

use super::{Engine, WireSite};
use crate::support::python_program;

const FORMATS: [&str; 3] = ["json", "yaml", "flat"];
const POOL: &str = "physical-centos8stream-x86_64";

#[test]
fn the_client_of_the_original_works_with_our_server() {
    let site = WireSite::new(Engine::Postgres);
    let (_server, _) = site.serve();
    let original = |format: &str, command: &[&str]| {
        let output = Command::new(python_program("duffy"))
            .arg("-c")
            .arg(site.config())
            .args(["client", "--format", format])
            .args(command)
            .env("HOME", site.scratch().join("home"))
            .env_remove("DUFFY_AUTH_KEY")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{format} {command:?}: {stderr}");
        // The original ends YAML with an empty line.
        let stdout = String::from_utf8(output.stdout).unwrap();
        stdout.trim_end().to_owned()
    };
    let ours = |format: &str, command: &[&str]| {
        let stdout = site
            .duffy()
            .succeed(&[&["client", "--format", format], command].concat());
        stdout.trim_end().to_owned()
    };

    for format in FORMATS {
        // Both clients show the same session.
        let requested = original(
            format,
            &["request-session", &format!("pool={POOL},quantity=2")],
        );
        let json = original("json", &["list-sessions"]);
        let sessions: Value = serde_json::from_str(&json).unwrap();
        let newest = sessions["sessions"].as_array().unwrap().iter();
        let newest = newest.max_by_key(|session| session["id"].as_u64()).unwrap();
        let id = newest["id"].to_string();
        assert_eq!(newest["nodes"].as_array().unwrap().len(), 2);
        for node in newest["nodes"].as_array().unwrap() {
            assert_eq!(node["state"], "deployed");
            let name = node["hostname"].as_str().unwrap();
            assert!(requested.contains(name), "{requested}");
        }
        for command in [
            &["list-pools"][..],
            &["show-pool", POOL],
            &["list-sessions"],
            &["show-session", &id],
            &["show-session", "2"],
        ] {
            assert_eq!(
                original(format, command),
                ours(format, command),
                "{format} {command:?}"
            );
        }
        let retired = original(format, &["retire-session", &id]);
        let shown = original(format, &["show-session", &id]);
        let without_action = |text: &str| {
            text.replace("\"put\"", "\"get\"")
                .replace("action: put", "action: get")
        };
        assert_eq!(without_action(&retired), shown);
        let active = match format {
            "json" => "\"active\": false",
            "yaml" => "active: false",
            _ => "active=FALSE",
        };
        assert!(retired.contains(active), "{retired}");
    }
}
