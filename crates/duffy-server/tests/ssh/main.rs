//! Both SSH clients, against real and simulated nodes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]
#![expect(clippy::disallowed_types, reason = "tests start programs")]

mod config;
mod held;
mod hostile;
mod real;
mod simulated;
mod sshd;
