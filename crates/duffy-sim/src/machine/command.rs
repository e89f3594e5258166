//! A command on a machine: its environment, its streams, its end.
#![expect(
    clippy::disallowed_types,
    reason = "a node runs what it is told by SSH"
)]

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use russh::server::Handle;
use russh::{ChannelId, Sig};
use tokio::process::Child;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::processes::{MARK, signal_of};
use super::streams::{Client, Ending, run_in_terminal, run_piped};
use crate::store::Record;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Input in memory that the command has not read yet, in units of [`INPUT_UNIT`] bytes.
const INPUT_UNITS: usize = 16 * 1024;
const INPUT_UNIT: usize = 1024;
/// How long a client may push when that is full, before its connection is given up. The library grants
/// the client more to send as soon as something arrives, so the only brake is to stop reading; and a
/// command that waits for its output to be taken, which needs the same loop, would wait for ever.
const INPUT_PATIENCE: Duration = Duration::from_mins(1);

/// What a client wants to run.
pub(super) enum Work {
    Shell,
    Exec(Vec<u8>),
    Program(&'static str),
}

/// The terminal that a client sits at.
pub(super) struct Terminal {
    term: String,
    columns: u16,
    rows: u16,
}

impl Terminal {
    pub fn new(term: &str, columns: u32, rows: u32) -> Self {
        let good =
            (1..=64).contains(&term.len()) && term.bytes().all(|byte| byte.is_ascii_graphic());
        Self {
            term: if good { term } else { "dumb" }.to_owned(),
            columns: cell_count(columns),
            rows: cell_count(rows),
        }
    }
}

fn cell_count(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// A command that has not been started yet.
pub(super) struct Command<'a> {
    pub work: Work,
    pub ending: Ending,
    pub variables: Vec<(String, String)>,
    pub terminal: Option<Terminal>,
    pub record: &'a Record,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// What can be done with a command that runs. Dropping it hangs up.
pub(super) struct Running {
    input: mpsc::UnboundedSender<Input>,
    room: Arc<Semaphore>,
    orders: mpsc::UnboundedSender<Order>,
    /// Whether the machine dies when the client has sent all.
    pub dies_at_end_of_input: bool,
    _hang_up: tokio_util::sync::DropGuard,
}

/// What a client sends to a command.
pub(super) enum Input {
    Data(Vec<u8>, OwnedSemaphorePermit),
    End,
}

/// What a client wants done with a command.
pub(super) enum Order {
    Resize(u16, u16),
    Signal(Signal),
}

impl Running {
    /// Passes input on, waiting while too much of it is unread.
    pub async fn feed(&self, data: &[u8]) -> Result<(), russh::Error> {
        let units = data.len() / INPUT_UNIT + 1;
        let units = u32::try_from(units.min(INPUT_UNITS)).unwrap_or(1);
        let room = Arc::clone(&self.room).acquire_many_owned(units);
        match timeout(INPUT_PATIENCE, room).await {
            Ok(Ok(room)) => {
                // When nobody reads any more, what is sent is lost, as with any command.
                let _ = self.input.send(Input::Data(data.to_vec(), room));
                Ok(())
            }
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(russh::Error::Disconnect),
        }
    }

    /// Passes on that the client sends no more.
    pub fn feed_end(&self) {
        let _ = self.input.send(Input::End);
    }

    pub fn resize(&self, columns: u32, rows: u32) {
        let _ = self
            .orders
            .send(Order::Resize(cell_count(columns), cell_count(rows)));
    }

    pub fn signal(&self, signal: &Sig) {
        if let Some(signal) = signal_of(signal) {
            let _ = self.orders.send(Order::Signal(signal));
        }
    }
}

impl Command<'_> {
    /// Starts the command and the task that carries its streams to the client.
    pub fn start(
        self,
        tasks: &TaskTracker,
        off: &CancellationToken,
        client: Handle,
        channel: ChannelId,
    ) -> io::Result<Running> {
        let (input, inbox) = mpsc::unbounded_channel();
        let (orders, orderbook) = mpsc::unbounded_channel();
        let hang_up = off.child_token();
        let running = Running {
            input,
            room: Arc::new(Semaphore::new(INPUT_UNITS)),
            orders,
            dies_at_end_of_input: matches!(self.ending, Ending::Die(_)),
            _hang_up: hang_up.clone().drop_guard(),
        };
        let client = Client {
            connection: client,
            channel,
            ending: self.ending.clone(),
            gone: hang_up.clone(),
        };
        match &self.terminal {
            None => {
                let child = self.spawn_piped()?;
                tasks.spawn(run_piped(child, client, inbox, orderbook, hang_up));
            }
            Some(terminal) => {
                let (child, pty) = self.spawn_in(terminal).map_err(io::Error::other)?;
                tasks.spawn(run_in_terminal(
                    child, pty, client, inbox, orderbook, hang_up,
                ));
            }
        }
        Ok(running)
    }

    fn spawn_piped(&self) -> io::Result<Child> {
        let (program, arguments) = self.command_line();
        tokio::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.environment())
            .current_dir(self.record.home())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    fn spawn_in(
        &self,
        terminal: &Terminal,
    ) -> Result<(Child, pty_process::Pty), pty_process::Error> {
        let (pty, line) = pty_process::open()?;
        if terminal.rows > 0 && terminal.columns > 0 {
            pty.resize(pty_process::Size::new(terminal.rows, terminal.columns))?;
        }
        let (program, arguments) = self.command_line();
        let child = pty_process::Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.environment())
            .current_dir(self.record.home())
            .kill_on_drop(true)
            .spawn(line)?;
        Ok((child, pty))
    }

    fn command_line(&self) -> (OsString, Vec<OsString>) {
        match &self.work {
            Work::Exec(text) => (
                "/bin/sh".into(),
                vec!["-c".into(), OsString::from_vec(text.clone())],
            ),
            Work::Program(path) => (path.into(), Vec::new()),
            Work::Shell if self.terminal.is_none() => ("/bin/sh".into(), Vec::new()),
            // The host's own start files would change the prompt, and tell of the wrong machine.
            Work::Shell => match shell() {
                "/bin/sh" => ("/bin/sh".into(), vec!["-i".into()]),
                bash => (
                    bash.into(),
                    vec!["--noprofile".into(), "--norc".into(), "-i".into()],
                ),
            },
        }
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let record = self.record;
        let home = record.home().into_os_string();
        let name = &record.machine.name;
        let mut all: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), PATH.into()),
            ("LANG".into(), "C.UTF-8".into()),
        ];
        for (name, value) in &self.variables {
            all.push((name.into(), value.into()));
        }
        if let Some(terminal) = &self.terminal {
            all.push(("TERM".into(), terminal.term.clone().into()));
            all.push(("PS1".into(), format!("[root@{name}] # ").into()));
        }
        let (peer, local) = (self.peer, self.local);
        let ends = format!(
            "{} {} {} {}",
            peer.ip(),
            peer.port(),
            local.ip(),
            local.port()
        );
        all.extend([
            ("HOME".into(), home),
            ("USER".into(), "root".into()),
            ("LOGNAME".into(), "root".into()),
            ("SHELL".into(), shell().into()),
            ("HOSTNAME".into(), name.into()),
            ("SSH_CONNECTION".into(), ends.into()),
            (MARK.into(), record.directory.clone().into_os_string()),
        ]);
        all
    }
}

/// A shell with line editing, where there is one.
fn shell() -> &'static str {
    ["/bin/bash", "/usr/bin/bash"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("/bin/sh")
}
