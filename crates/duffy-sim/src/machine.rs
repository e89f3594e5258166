//! One machine in this process: its SSH server, and the commands that it runs.

mod authorized_keys;
mod command;
mod connection;
mod processes;
mod server;
mod state;
mod streams;

pub(crate) use processes::kill_processes;
pub(crate) use server::start;
pub(crate) use state::MachineState;
