//! Tests of simulated machines from outside.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]
#![expect(clippy::disallowed_types, reason = "tests start programs")]

mod faults;
mod openssh;
mod support;
