//! Schemathesis: sends the server valid and invalid requests that it generates from the API description.

use std::process::Command;
use std::time::Duration;

use super::{CREDENTIALS, Engine, WireSite};
use crate::support::{Program, python_program};

/// The checks of every reply. The check of valid and invalid input is left out: like the original, the API accepts more than it
/// describes, and refuses valid requests, for example when no node is ready.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method,\
    allow_header_conformance,ignored_auth";

/// Retires tenants, possibly the one that sends the request.
const DANGEROUS: &str = "update_tenant_api_v1_tenants__id__put";

#[test]
fn every_reply_conforms_to_the_description() {
    let schemathesis = python_program("schemathesis");
    let site = WireSite::new(Engine::Sqlite);
    let (_server, url) = site.serve();
    let (_, name, key) = CREDENTIALS[0];
    for (label, choice) in [
        ("schemathesis", "--exclude-operation-id"),
        ("schemathesis-tenants", "--include-operation-id"),
    ] {
        let mut command = Command::new(&schemathesis);
        command
            .args(["run", &format!("{url}/openapi.json")])
            .args(["--auth", &format!("{name}:{key}"), "--checks", CHECKS])
            .args([choice, DANGEROUS, "--max-examples", "20", "--no-color"])
            .args(["--seed", "1", "--generation-database", "none"])
            .args(["--continue-on-failure"])
            .env("HOME", site.scratch().join("home"))
            .current_dir(site.scratch().path());
        let run = Program::start(site.scratch(), label, command);
        let code = run.wait_exit(Duration::from_mins(3));
        assert_eq!(code, 0, "{}", run.log());
        // Schemathesis must have tested something.
        let log = run.log();
        assert!(log.contains("generated"), "{log}");
    }
}
