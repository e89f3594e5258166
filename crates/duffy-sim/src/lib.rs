//! Simulated nodes with an SSH server each, and faults.
//!
//! A [`Cloud`] is a set of machines that exist only as directories below one directory of the host.
//! Each machine has a loopback address of its own, an SSH server of its own with a host key of its
//! own, and runs the commands it is given with the machine's `root/` as home and working directory.
//!
//! A machine is not a jail: its commands run on the host, as the user that runs this process, and see
//! the host's files. `~` and `$HOME` are the machine's, `~root` and `/root` are the host's; so
//! whatever manages simulated machines must say `~` or `$HOME`.

mod cloud;
mod error;
mod fault;
mod machine;
mod store;

pub use cloud::{Cloud, CloudSettings};
pub use error::SimError;
pub use fault::{Fault, Faults, Moment};
pub use store::{Machine, list_machines};
