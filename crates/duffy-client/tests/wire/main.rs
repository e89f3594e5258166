//! The client against a peer that sends exactly the bytes of a test.
#![expect(clippy::unwrap_used, reason = "tests and their helpers")]

mod calls;
mod odd_replies;
mod peer;
