//! Copies a command's input and output between its process and its client, until either ends.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pty_process::{OwnedWritePty, Size};
use russh::ChannelId;
use russh::server::Handle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::processes::{name_of, signal_group};
use super::state::MachineState;

/// How long commands have to end by themselves after each signal when the client is gone.
const HANGUP_GRACE: Duration = Duration::from_secs(2);
/// After a shell's end, its terminal's output counts as complete after this time without output.
const TERMINAL_QUIET: Duration = Duration::from_millis(100);
/// Control-D, which ends the input of a terminal.
const END_OF_INPUT: u8 = 4;
/// How long a client may take to close the channel before its machine dies.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a client sends to a command.
pub(super) enum Input {
    Data(Vec<u8>, OwnedSemaphorePermit),
    End,
}

/// What a client requests for a running command.
pub(super) enum Control {
    Resize(u16, u16),
    Signal(Signal),
}

/// What happens when a command ends.
#[derive(Clone)]
pub(super) enum Ending {
    /// The client gets its exit status.
    Report,
    /// The client gets neither its exit status nor its output.
    Silence,
    /// The machine dies, and the client gets no exit status.
    Die(Arc<MachineState>),
    /// The client gets its exit status. If it succeeded, the machine dies then.
    ReportAndDie(Arc<MachineState>),
}

/// The channel of the command's client.
pub(super) struct Client {
    pub handle: Handle,
    pub channel: ChannelId,
    pub ending: Ending,
    /// Cancelled when the client has closed the channel.
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
            self.handle
                .extended_data(self.channel, 1, data.to_vec())
                .await
        } else {
            self.handle.data(self.channel, data.to_vec()).await
        };
        sent.is_ok()
    }

    async fn finish(&self, status: io::Result<ExitStatus>) {
        let succeeded = status.as_ref().is_ok_and(ExitStatus::success);
        match &self.ending {
            Ending::Report => self.report(status).await,
            Ending::Silence => {}
            Ending::Die(machine) => machine.die(),
            Ending::ReportAndDie(machine) => {
                self.report(status).await;
                if succeeded {
                    let _ = timeout(CLOSE_TIMEOUT, self.gone.cancelled()).await;
                    machine.die();
                }
            }
        }
    }

    async fn report(&self, status: io::Result<ExitStatus>) {
        let _ = self.handle.eof(self.channel).await;
        let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
        let _ = match (signal.map(Signal::try_from), status) {
            (Some(Ok(signal)), Ok(status)) => {
                let name = name_of(signal);
                let core = status.core_dumped();
                self.handle
                    .exit_signal_request(self.channel, name, core, String::new(), String::new())
                    .await
            }
            (_, status) => {
                let code = status.ok().and_then(|status| status.code()).unwrap_or(255);
                self.handle
                    .exit_status_request(self.channel, code.cast_unsigned())
                    .await
            }
        };
        let _ = self.handle.close(self.channel).await;
    }
}

/// The process group of a command.
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

    /// Ends the command as a lost terminal or connection does, and kills it if that does not suffice.
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

/// Copies the streams of a command without a terminal, until it ends or `hang_up` is cancelled.
pub(super) async fn run_piped(
    mut child: Child,
    client: Client,
    inputs: mpsc::UnboundedReceiver<Input>,
    controls: mpsc::UnboundedReceiver<Control>,
    hang_up: CancellationToken,
) {
    let group = Group::of(&child);
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return group.hang_up(&mut child).await;
    };
    let passing = pass_input(inputs, controls, stdin, None, &group, |_, _, _| {});
    let work = async {
        // As with OpenSSH, the channel stays open as long as a process holds the command's output open.
        let output = client.copy_from(stdout, false);
        let errors = client.copy_from(stderr, true);
        tokio::join!(output, errors, child.wait()).2
    };
    let ended = tokio::select! {
        status = work => Some(status),
        () = passing => None,
        () = hang_up.cancelled() => None,
    };
    match ended {
        Some(status) => client.finish(status).await,
        None => group.hang_up(&mut child).await,
    }
}

/// Copies the streams of a command in a terminal, until it ends or `hang_up` is cancelled.
pub(super) async fn run_in_terminal(
    mut child: Child,
    pty: pty_process::Pty,
    client: Client,
    inputs: mpsc::UnboundedReceiver<Input>,
    controls: mpsc::UnboundedReceiver<Control>,
    hang_up: CancellationToken,
) {
    let group = Group::of(&child);
    let (mut screen, keyboard) = pty.into_split();
    let resize = |keyboard: &OwnedWritePty, columns, rows| {
        if columns > 0
            && rows > 0
            && let Err(error) = keyboard.resize(Size::new(rows, columns))
        {
            tracing::debug!(%error, "cannot resize a terminal");
        }
    };
    let typing = pass_input(
        inputs,
        controls,
        keyboard,
        Some(END_OF_INPUT),
        &group,
        resize,
    );
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
            // Background processes may hold the terminal open forever.
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
    // Closing the terminal sends SIGHUP to the processes that it controls.
    drop(screen);
    match status {
        Some(status) => client.finish(status).await,
        None => group.hang_up(&mut child).await,
    }
}

/// Passes a client's input and requests on to a command. `end` is what to type at the end of the input; without it, the
/// stream is closed. Never returns.
async fn pass_input<W: AsyncWrite + Unpin>(
    mut inputs: mpsc::UnboundedReceiver<Input>,
    mut controls: mpsc::UnboundedReceiver<Control>,
    stdin: W,
    end: Option<u8>,
    group: &Group,
    resize: impl Fn(&W, u16, u16),
) {
    let mut stdin = Some(stdin);
    let mut pending: Vec<u8> = Vec::new();
    let mut held = None;
    loop {
        let writing = async {
            match &mut stdin {
                Some(stdin) => stdin.write(&pending).await,
                None => Ok(pending.len()),
            }
        };
        tokio::select! {
            written = writing, if !pending.is_empty() => {
                // After an error nothing reads the input any more: it is lost.
                pending.drain(..written.unwrap_or(pending.len()));
                if pending.is_empty() {
                    held = None;
                }
            }
            Some(input) = inputs.recv(), if pending.is_empty() => match (input, end) {
                (Input::Data(data, permit), _) => {
                    pending = data;
                    held = Some(permit);
                }
                (Input::End, Some(end)) => pending = vec![end],
                (Input::End, None) => stdin = None,
            },
            // Also while the command accepts no input.
            Some(control) = controls.recv() => match (control, &stdin) {
                (Control::Signal(signal), _) => group.signal(signal),
                (Control::Resize(columns, rows), Some(stdin)) => resize(stdin, columns, rows),
                (Control::Resize(..), None) => {}
            },
            else => break,
        }
    }
    drop(held);
    std::future::pending::<()>().await;
}
