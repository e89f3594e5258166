//! Commands on a machine: starting them, their environment, and what clients can do with them.
#![expect(
    clippy::disallowed_types,
    reason = "a machine runs its clients' commands"
)]

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use russh::server::Handle;
use russh::{ChannelId, Sig};
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::processes::{MARK, signal_of};
use super::streams::{Client, Control, Ending, Input, run_in_terminal, run_piped};
use crate::store::Record;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Limit of the input in memory that the command has not read yet, in units of [`INPUT_UNIT`] bytes.
const INPUT_UNITS: usize = 16 * 1024;
const INPUT_UNIT: usize = 1024;
/// How long a client may send at this limit before its connection is closed. The library enlarges the client's window as
/// soon as data arrive, so the only way to slow it down is to stop reading. But a command that waits until its output is
/// read needs the same loop, and would wait forever.
const INPUT_TIMEOUT: Duration = Duration::from_mins(1);

/// A client's request.
pub(super) enum Work {
    Shell,
    Exec(Vec<u8>),
    Program(&'static str),
}

/// A client's terminal.
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

/// A running command. Dropping it ends the command.
pub(super) struct RunningCommand {
    input: mpsc::UnboundedSender<Input>,
    input_limit: Arc<Semaphore>,
    controls: mpsc::UnboundedSender<Control>,
    /// Whether the machine dies when the client has sent all input.
    pub dies_at_end_of_input: bool,
    _hang_up: tokio_util::sync::DropGuard,
}

impl RunningCommand {
    /// Passes input on. Waits while too much input is unread.
    pub async fn send_input(&self, data: &[u8]) -> Result<(), russh::Error> {
        let units = data.len() / INPUT_UNIT + 1;
        let units = u32::try_from(units.min(INPUT_UNITS)).unwrap_or(1);
        let permit = Arc::clone(&self.input_limit).acquire_many_owned(units);
        let Ok(permit) = timeout(INPUT_TIMEOUT, permit).await else {
            return Err(russh::Error::Disconnect);
        };
        if let Ok(permit) = permit {
            // If the command does not read any more, the input is lost.
            let _ = self.input.send(Input::Data(data.to_vec(), permit));
        }
        Ok(())
    }

    pub fn end_input(&self) {
        let _ = self.input.send(Input::End);
    }

    pub fn resize(&self, columns: u32, rows: u32) {
        let resize = Control::Resize(cell_count(columns), cell_count(rows));
        let _ = self.controls.send(resize);
    }

    pub fn signal(&self, signal: &Sig) {
        if let Some(signal) = signal_of(signal) {
            let _ = self.controls.send(Control::Signal(signal));
        }
    }
}

impl Command<'_> {
    /// Starts the command, and a task that copies its streams to and from the client.
    pub fn start(
        self,
        tasks: &TaskTracker,
        off: &CancellationToken,
        handle: Handle,
        channel: ChannelId,
    ) -> io::Result<RunningCommand> {
        let (input, inputs) = mpsc::unbounded_channel();
        let (control, controls) = mpsc::unbounded_channel();
        let hang_up = off.child_token();
        let command = RunningCommand {
            input,
            input_limit: Arc::new(Semaphore::new(INPUT_UNITS)),
            controls: control,
            dies_at_end_of_input: matches!(self.ending, Ending::Die(_)),
            _hang_up: hang_up.clone().drop_guard(),
        };
        let client = Client {
            handle,
            channel,
            ending: self.ending.clone(),
            gone: hang_up.clone(),
        };
        match &self.terminal {
            None => {
                let child = self.spawn_piped()?;
                tasks.spawn(run_piped(child, client, inputs, controls, hang_up));
            }
            Some(terminal) => {
                let (child, pty) = self.spawn_in(terminal).map_err(io::Error::other)?;
                tasks.spawn(run_in_terminal(
                    child, pty, client, inputs, controls, hang_up,
                ));
            }
        }
        Ok(command)
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
        let (pty, pts) = pty_process::open()?;
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
            .spawn(pts)?;
        Ok((child, pty))
    }

    fn command_line(&self) -> (&'static str, Vec<OsString>) {
        match &self.work {
            Work::Exec(text) => (
                "/bin/sh",
                vec!["-c".into(), OsString::from_vec(text.clone())],
            ),
            Work::Program(path) => (*path, Vec::new()),
            Work::Shell if self.terminal.is_none() => ("/bin/sh", Vec::new()),
            // The host's own start files would set a prompt that names the wrong machine.
            Work::Shell => match shell() {
                "/bin/sh" => ("/bin/sh", vec!["-i".into()]),
                bash => (bash, ["--noprofile", "--norc", "-i"].map(Into::into).into()),
            },
        }
    }

    fn environment(&self) -> Vec<(&str, OsString)> {
        let record = self.record;
        let name = &record.machine.name;
        let mut all: Vec<(&str, OsString)> =
            vec![("PATH", PATH.into()), ("LANG", "C.UTF-8".into())];
        let variables = self.variables.iter();
        all.extend(variables.map(|(name, value)| (name.as_str(), value.into())));
        if let Some(terminal) = &self.terminal {
            all.push(("TERM", terminal.term.clone().into()));
            all.push(("PS1", format!("[root@{name}] # ").into()));
        }
        let [peer, local] =
            [self.peer, self.local].map(|end| format!("{} {}", end.ip(), end.port()));
        all.extend([
            ("HOME", record.home().into()),
            ("USER", "root".into()),
            ("LOGNAME", "root".into()),
            ("SHELL", shell().into()),
            ("HOSTNAME", name.into()),
            ("SSH_CONNECTION", format!("{peer} {local}").into()),
            (MARK, record.directory.clone().into()),
        ]);
        all
    }
}

/// Returns a shell with line editing if there is one.
fn shell() -> &'static str {
    ["/bin/bash", "/usr/bin/bash"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("/bin/sh")
}
