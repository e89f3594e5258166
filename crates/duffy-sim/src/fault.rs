//! Faults: at random for all machines, or set for one machine.

use std::time::Duration;

use rand::RngExt;

/// Delays and random failures of all machines of a cloud.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// How long each SSH command waits before it starts.
    pub ssh_delay: Duration,
    /// Probability that an SSH connection is closed before the server's first message, from 0 (default) to 1.
    pub ssh_failure_rate: f64,
}

/// Decides at random whether a failure with this probability happens.
pub(crate) fn happens(rate: f64) -> bool {
    rate > 0.0 && rand::rng().random::<f64>() < rate
}

/// A fault of one machine, from the next connection or command on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Connections are refused, as without an SSH server.
    Refuse,
    /// Connections are accepted, and the server sends nothing.
    Stall,
    /// The connection is closed when a command has been started.
    DropDuringCommand,
    /// Commands are not run, and end with this exit status.
    FailCommand(u8),
    /// Commands are not run, and fail with this text on the error stream.
    FailCommandSaying(&'static str),
    /// Commands are not run. The error stream repeats this text, 64 MiB in all, and then nothing follows.
    FloodDuringCommand(&'static str),
    /// Each command waits this long before it starts.
    Delay(Duration),
    /// Connections are accepted and reset at once.
    Reset,
    /// Commands run, and the client gets neither their output nor their exit status.
    StallDuringCommand,
    /// The machine dies at its next command. It remains one of the cloud's machines until it is destroyed, but nothing
    /// runs on it and it accepts no connections, even after another fault is set or the cloud is opened again.
    Die(Moment),
}

/// When a machine dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// When a command is requested. The command does not run.
    BeforeCommand,
    /// While the command runs, at the end of its input or at its own end, whichever comes first. The
    /// client gets no exit status.
    DuringCommand,
    /// After a command that succeeded, when its client has got the exit status.
    AfterCommand,
}
