//! Support for the end-to-end tests: real PostgreSQL, real sshd, real ansible-playbook and the built `duffy`.
//!
//! All processes and files of a test belong to a [`Scratch`]. They are removed with it: when the test ends, when it panics, and
//! when its process is killed.

mod api;
mod duffy;
mod http;
mod key;
mod lab;
mod postgres;
mod program;
mod proxy;
mod raw_connection;
mod scratch;
mod site;
mod ssh;
mod sshd;
mod tools;
mod wait;

pub use api::{Api, run_concurrently};
pub use duffy::Duffy;
pub use http::{Reply, http, send};
pub use key::SshKey;
pub use lab::{Lab, start, wait_for_log};
pub use postgres::Postgres;
pub use program::Program;
pub use proxy::Proxy;
pub use raw_connection::RawConnection;
pub use scratch::Scratch;
pub use site::{Pool, Site};
pub use ssh::SshEndpoint;
pub use sshd::SshNode;
pub use tools::{ansible_playbook, python_program};
pub use wait::{eventually, free_port};
