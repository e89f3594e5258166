//! Simulated nodes with an SSH server each, and faults.
//!
//! A [`Cloud`] is a set of machines that exist only as directories below one directory of the host.
//! Each machine has its own loopback address, its own SSH server and its own host key. It runs
//! commands with its `root/` as home and working directory.
//!
//! A machine is not a jail: its commands run on the host, as the user that runs this process, and see
//! the host's files. `~` and `$HOME` are the machine's, `~root` and `/root` are the host's. Programs
//! that manage simulated machines must use `~` or `$HOME`.

mod cloud;
mod error;
mod fault;
mod machine;
mod store;

pub use cloud::{Cloud, CloudSettings};
pub use error::SimError;
pub use fault::{Fault, Faults, Moment};
pub use store::{Machine, list_machines};
