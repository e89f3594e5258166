//! Simulated machines, seen from outside.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod faults;
mod openssh;
mod support;
