//! End-to-end tests: the built binary with real PostgreSQL, sshd and ansible-playbook.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![expect(clippy::print_stderr, reason = "failed tests print logs")]
#![expect(clippy::disallowed_types, reason = "tests start programs")]

mod bad_nodes;
mod bad_playbooks;
mod chaos;
mod concurrent_requests;
mod crashes;
mod database_load;
mod db;
mod failures;
mod flood;
mod history;
mod idempotency;
mod keys;
mod legacy;
mod operators;
mod original_database;
mod outages;
mod probes;
mod quickstart;
mod reuse;
mod round_trips;
mod sessions;
mod several_processes;
mod start_errors;
mod stopping;
mod support;
mod support_tests;
mod wire;
