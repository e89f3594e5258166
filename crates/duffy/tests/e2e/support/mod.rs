//! What the end-to-end tests stand on: real PostgreSQL, real sshd, real ansible-playbook and the built `duffy`.
//!
//! Everything a test starts or writes belongs to a [`Scratch`], and goes with it: when the test ends, when
//! it panics, and when its process is killed.

mod duffy;
mod http;
mod key;
mod postgres;
mod program;
mod scratch;
mod site;
mod sshd;
mod tools;
mod wait;

pub use duffy::Duffy;
pub use http::http;
pub use key::SshKey;
pub use postgres::Postgres;
pub use program::Program;
pub use scratch::Scratch;
pub use site::{Pool, Site};
pub use sshd::SshNode;
pub use tools::ansible_playbook;
pub use wait::{eventually, free_port};
