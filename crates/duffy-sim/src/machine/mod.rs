//! One running machine: its SSH server, and the commands it runs.

mod authorized_keys;
mod command;
mod processes;
mod server;
mod session;
mod streams;

pub(crate) use processes::kill_processes;
pub(crate) use server::Server;
