//! What the end-to-end tests stand on: real PostgreSQL, real sshd, real ansible-playbook and the built `duffy`.
//!
//! Everything a test starts or writes belongs to a [`Scratch`], and goes with it: when the test ends, when
//! it panics, and when its process is killed.

mod api;
mod duffy;
mod http;
mod key;
mod lab;
mod postgres;
mod program;
mod proxy;
mod raw;
mod scratch;
mod site;
mod ssh;
mod sshd;
mod tools;
mod wait;

pub use api::{Api, together};
pub use duffy::Duffy;
pub use http::{Reply, http, send};
pub use key::SshKey;
pub use lab::{Lab, start, wait_for_log};
pub use postgres::Postgres;
pub use program::Program;
pub use proxy::Proxy;
pub use raw::Wire;
pub use scratch::Scratch;
pub use site::{Pool, Site};
pub use ssh::Door;
pub use sshd::SshNode;
pub use tools::{ansible_playbook, python_program};
pub use wait::{eventually, free_port};
