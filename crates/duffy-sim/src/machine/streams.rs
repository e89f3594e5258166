//! Carrying a command's input and output between its process and its client, to the end of either.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use russh::ChannelId;
use russh::server::Handle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::command::{Input, Order};
use super::processes::{name_of, signal_group};
use super::server::Shared;

/// How long commands have to end by themselves when the client is gone.
const HANGUP_GRACE: Duration = Duration::from_secs(2);
/// How long a terminal may stay quiet after its shell's end until its last output counts as read.
const TERMINAL_QUIET: Duration = Duration::from_millis(100);

/// How long a client may take to leave, when its machine dies then.
const FAREWELL: Duration = Duration::from_secs(1);

/// What comes of a command that ends.
#[derive(Clone)]
pub(super) enum Ending {
    /// Its client is told.
    Tell,
    /// Its client is told nothing, of its output neither.
    Silence,
    /// The machine dies, and nobody is told.
    Die(Arc<Shared>),
    /// If it succeeded, the machine dies when the client has been told.
    TellAndDie(Arc<Shared>),
}

/// The channel of the client that asked for the command.
pub(super) struct Client {
    pub connection: Handle,
    pub channel: ChannelId,
    pub ending: Ending,
    /// Cancelled when the client has left the channel.
    pub gone: CancellationToken,
}

impl Client {
    /// Copies a stream to the client until it ends or the client is gone.
    async fn copy_from(&self, mut stream: impl AsyncRead + Unpin, errors: bool) {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            if !self.send(&buffer[..count], errors).await {
                return;
            }
        }
    }

    async fn send(&self, data: &[u8], errors: bool) -> bool {
        if matches!(self.ending, Ending::Silence) {
            return true;
        }
        let sent = if errors {
            self.connection
                .extended_data(self.channel, 1, data.to_vec())
                .await
        } else {
            self.connection.data(self.channel, data.to_vec()).await
        };
        sent.is_ok()
    }

    async fn finish(&self, status: io::Result<ExitStatus>) {
        let succeeded = status.as_ref().is_ok_and(ExitStatus::success);
        match &self.ending {
            Ending::Tell => self.tell(status).await,
            Ending::Silence => {}
            Ending::Die(machine) => machine.die(),
            Ending::TellAndDie(machine) => {
                self.tell(status).await;
                if succeeded {
                    let _ = timeout(FAREWELL, self.gone.cancelled()).await;
                    machine.die();
                }
            }
        }
    }

    async fn tell(&self, status: io::Result<ExitStatus>) {
        let _ = self.connection.eof(self.channel).await;
        let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
        let _ = match (signal.map(Signal::try_from), status) {
            (Some(Ok(signal)), Ok(status)) => {
                let name = name_of(signal);
                let core = status.core_dumped();
                self.connection
                    .exit_signal_request(self.channel, name, core, String::new(), String::new())
                    .await
            }
            (_, status) => {
                let code = status.ok().and_then(|status| status.code()).unwrap_or(255);
                self.connection
                    .exit_status_request(self.channel, code.cast_unsigned())
                    .await
            }
        };
        let _ = self.connection.close(self.channel).await;
    }
}

/// The process group of a command, and how it is ended.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.map(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            signal_group(leader, signal);
        }
    }

    /// What a lost terminal or connection does, and then what nothing withstands.
    async fn hang_up(&self, child: &mut Child) {
        self.signal(Signal::SIGHUP);
        self.signal(Signal::SIGCONT);
        if timeout(HANGUP_GRACE, child.wait()).await.is_err() {
            self.signal(Signal::SIGTERM);
            let _ = timeout(HANGUP_GRACE, child.wait()).await;
        }
        self.signal(Signal::SIGKILL);
        let _ = child.wait().await;
    }
}

/// Carries the streams of a command without a terminal, until it ends or is hung up on.
pub(super) async fn run_piped(
    mut child: Child,
    client: Client,
    inbox: mpsc::UnboundedReceiver<Input>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    hang_up: CancellationToken,
) {
    let group = Group::of(&child);
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return group.hang_up(&mut child).await;
    };
    let feeding = write_input(inbox, stdin);
    let copying = async {
        tokio::join!(
            client.copy_from(stdout, false),
            client.copy_from(stderr, true)
        );
    };
    let obeying = async {
        while let Some(order) = orders.recv().await {
            if let Order::Signal(signal) = order {
                group.signal(signal);
            }
        }
        std::future::pending::<()>().await;
    };
    let ending = async {
        let work = async {
            // As with OpenSSH, the channel lives as long as something holds the command's output.
            let ((), status) = tokio::join!(copying, child.wait());
            status
        };
        tokio::select! {
            status = work => Some(status),
            () = feeding => None,
            () = obeying => None,
            () = hang_up.cancelled() => None,
        }
    };
    match ending.await {
        Some(status) => client.finish(status).await,
        None => group.hang_up(&mut child).await,
    }
}

/// The same for a command in a terminal.
pub(super) async fn run_in_terminal(
    mut child: Child,
    pty: pty_process::Pty,
    client: Client,
    inbox: mpsc::UnboundedReceiver<Input>,
    orders: mpsc::UnboundedReceiver<Order>,
    hang_up: CancellationToken,
) {
    let group = Group::of(&child);
    let (mut screen, keyboard) = pty.into_split();
    let typing = type_input(inbox, orders, keyboard, &group);
    let ending = async {
        let work = async {
            let copying = client.copy_from(&mut screen, false);
            let ended = tokio::select! {
                status = child.wait() => Some(status),
                () = copying => None,
            };
            let Some(status) = ended else {
                // Every process has closed the terminal.
                return child.wait().await;
            };
            // What the shell left in the background may hold the terminal for ever.
            let mut buffer = vec![0; 32 * 1024];
            while let Ok(Ok(count @ 1..)) = timeout(TERMINAL_QUIET, screen.read(&mut buffer)).await
            {
                if !client.send(&buffer[..count], false).await {
                    break;
                }
            }
            status
        };
        tokio::select! {
            status = work => Some(status),
            () = typing => None,
            () = hang_up.cancelled() => None,
        }
    };
    let status = ending.await;
    // Closing the terminal hangs up on all that has it for its own.
    drop(screen);
    match status {
        Some(status) => client.finish(status).await,
        None => group.hang_up(&mut child).await,
    }
}

/// Writes what the client sends until it says that there is no more; then waits for ever, as after a
/// command that no longer reads.
async fn write_input(mut inbox: mpsc::UnboundedReceiver<Input>, stdin: ChildStdin) {
    let mut stdin = Some(stdin);
    while let Some(input) = inbox.recv().await {
        match (input, &mut stdin) {
            (Input::Data(data, _room), Some(open)) => {
                if open.write_all(&data).await.is_err() {
                    stdin = None;
                }
            }
            (Input::End, _) => stdin = None,
            (Input::Data(..), None) => {}
        }
    }
    std::future::pending::<()>().await;
}

/// The same for a terminal, which is also resized while it cannot take more input.
async fn type_input(
    mut inbox: mpsc::UnboundedReceiver<Input>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    mut keyboard: pty_process::OwnedWritePty,
    group: &Group,
) {
    /// Control-D: how the end of input is typed.
    const END_OF_INPUT: u8 = 4;

    let mut pending: Vec<u8> = Vec::new();
    let mut held = None;
    loop {
        tokio::select! {
            written = keyboard.write(&pending), if !pending.is_empty() => {
                // On an error every process has closed the terminal: what is typed is lost.
                let count = written.unwrap_or(pending.len());
                pending.drain(..count);
                if pending.is_empty() {
                    held = None;
                }
            }
            Some(input) = inbox.recv(), if pending.is_empty() => match input {
                Input::Data(data, room) => {
                    pending = data;
                    held = Some(room);
                }
                Input::End => pending = vec![END_OF_INPUT],
            },
            Some(order) = orders.recv() => match order {
                Order::Resize(columns, rows) if columns > 0 && rows > 0 => {
                    if let Err(error) = keyboard.resize(pty_process::Size::new(rows, columns)) {
                        tracing::debug!(%error, "cannot resize a terminal");
                    }
                }
                Order::Resize(..) => {}
                Order::Signal(signal) => group.signal(signal),
            },
            else => break,
        }
    }
    drop(held);
    std::future::pending::<()>().await;
}
