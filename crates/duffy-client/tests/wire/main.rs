//! The client against a peer that answers byte for byte what a test says.
#![expect(clippy::unwrap_used, reason = "tests and their helpers")]

mod calls;
mod odd_replies;
mod peer;
