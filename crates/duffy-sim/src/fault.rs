//! What can be made to go wrong: at random for all machines, or as told for one.

use std::time::Duration;

use rand::RngExt;

use crate::SimError;

/// What goes wrong at random, and how long things take, for all machines of a cloud.
///
/// Rates are probabilities from 0 (never, the default) to 1 (always).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// How long it takes to make a machine.
    pub create_delay: Duration,
    /// How often making a machine fails.
    pub create_failure_rate: f64,
    /// How long it takes to destroy a machine.
    pub destroy_delay: Duration,
    /// How often destroying a machine fails.
    pub destroy_failure_rate: f64,
    /// How long each SSH connection waits before the server speaks.
    pub ssh_delay: Duration,
    /// How often an SSH connection is closed before the server speaks.
    pub ssh_failure_rate: f64,
}

impl Faults {
    /// Refuses rates that are no probabilities.
    pub(crate) fn check(&self) -> Result<(), SimError> {
        for (name, rate) in [
            ("create_failure_rate", self.create_failure_rate),
            ("destroy_failure_rate", self.destroy_failure_rate),
            ("ssh_failure_rate", self.ssh_failure_rate),
        ] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(SimError::Faults(format!(
                    "{name} is {rate}, it must be between 0 and 1"
                )));
            }
        }
        Ok(())
    }
}

/// Throws the dice for a rate that [`Faults::check`] has passed.
pub(crate) fn happens(rate: f64) -> bool {
    rate > 0.0 && rand::rng().random::<f64>() < rate
}

/// What one machine is told to do wrong, from the next connection or command on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Connections are refused, as if no SSH server ran.
    Refuse,
    /// Connections are accepted, and nothing is ever said on them.
    Stall,
    /// The connection is cut when a command has been started.
    DropDuringCommand,
    /// Commands are not run, and end with this exit status.
    FailCommand(u8),
    /// Commands are not run, and fail with this text on the error stream.
    FailCommandSaying(&'static str),
    /// Commands are not run. This text comes on the error stream again and again, 64 MiB in all, and then nothing.
    FloodDuringCommand(&'static str),
    /// The server waits this long before it speaks.
    Delay(Duration),
    /// Connections are accepted and reset at once.
    Reset,
    /// Commands run, and nothing is ever told of their output and their end.
    StallDuringCommand,
    /// The machine dies at its next command: it is still one of the cloud's machines, but nothing runs
    /// on it and nobody answers there, whatever it is told and though the cloud is opened anew, until it
    /// is destroyed.
    Die(Moment),
}

/// When a machine dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// When the command has been asked for, and is not run.
    BeforeCommand,
    /// While the command runs, at the end of its input or at its own end, whichever comes first. Its
    /// client is not told of its end.
    DuringCommand,
    /// After a command that succeeded, when its client has been told so.
    AfterCommand,
}
