//! One SSH connection: authentication, and the requests on its channels.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use tokio_util::sync::CancellationToken;

use super::authorized_keys::is_authorized;
use super::command::{Command, RunningCommand, Terminal, Work};
use super::state::MachineState;
use super::streams::Ending;
use crate::{Fault, Moment};

/// Limit of channels on one connection, as OpenSSH's `MaxSessions`.
const CHANNEL_LIMIT: usize = 10;
/// How much a machine sends in all when it floods its client, in bytes, and in one message.
const FLOOD: usize = 64 << 20;
const FLOOD_MESSAGE: usize = 32 << 10;
/// Limit of variables that a client can set on one channel.
const VARIABLE_LIMIT: usize = 64;
/// Paths of the program behind `sftp` and `scp`, by distribution.
const SFTP_SERVERS: [&str; 5] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/lib/sftp-server",
];

/// What a client has set up on a channel, and the command that runs there.
#[derive(Default)]
struct ChannelState {
    variables: Vec<(String, String)>,
    terminal: Option<Terminal>,
    command: Option<RunningCommand>,
}

/// The server's side of a connection. Dropping it kills its commands.
pub(super) struct Connection {
    machine: Arc<MachineState>,
    peer: SocketAddr,
    local: SocketAddr,
    /// Cancelling it closes the connection.
    cut: CancellationToken,
    logged_in: CancellationToken,
    channels: HashMap<ChannelId, ChannelState>,
}

type Reply = Result<(), russh::Error>;

impl Connection {
    pub fn new(
        machine: Arc<MachineState>,
        peer: SocketAddr,
        local: SocketAddr,
        cut: CancellationToken,
        logged_in: CancellationToken,
    ) -> Self {
        Self {
            machine,
            peer,
            local,
            cut,
            logged_in,
            channels: HashMap::new(),
        }
    }

    async fn authenticate(&self, user: &str, key: &PublicKey) -> Auth {
        if user == "root" && is_authorized(&self.machine.record.home(), key).await {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }

    /// Returns the command that runs on a channel.
    fn command(&self, id: ChannelId) -> Option<&RunningCommand> {
        self.channels.get(&id)?.command.as_ref()
    }

    /// Sends the same text again and again, until the client leaves or the limit is reached.
    fn flood(&self, text: &'static str, handle: Handle, channel: ChannelId) {
        let message = text.repeat(FLOOD_MESSAGE.div_ceil(text.len().max(1)));
        let flood = async move {
            for _ in 0..FLOOD.div_ceil(message.len().max(1)) {
                let sent = handle.extended_data(channel, 1, message.clone()).await;
                if sent.is_err() {
                    break;
                }
            }
        };
        let end = self.cut.clone();
        self.machine
            .tasks
            .spawn(end.run_until_cancelled_owned(flood));
    }

    /// Waits before a command. False if the connection is closed meanwhile.
    async fn wait(&self) -> bool {
        let mut delay = self.machine.faults.ssh_delay;
        if let Some(Fault::Delay(more)) = self.machine.fault() {
            delay += more;
        }
        let waiting = tokio::time::sleep(delay);
        delay.is_zero() || self.cut.run_until_cancelled(waiting).await.is_some()
    }

    /// Starts a command, unless one already runs on the channel.
    async fn start(&mut self, id: ChannelId, work: Work, session: &mut Session) -> Reply {
        if !self.wait().await {
            return Ok(());
        }
        let state = self.channels.get_mut(&id);
        let Some(state) = state.filter(|state| state.command.is_none()) else {
            return session.channel_failure(id);
        };
        let fault = self.machine.fault();
        let failure = match fault {
            Some(Fault::FailCommand(status)) => {
                Some((status, "simulated failure of the command\n"))
            }
            Some(Fault::FailCommandSaying(text)) => Some((1, text)),
            _ => None,
        };
        if let Some((status, text)) = failure {
            session.channel_success(id)?;
            session.extended_data(id, 1, text.as_bytes())?;
            session.exit_status_request(id, u32::from(status))?;
            session.eof(id)?;
            return session.close(id);
        }
        if let Some(Fault::FloodDuringCommand(text)) = fault {
            session.channel_success(id)?;
            self.flood(text, session.handle(), id);
            return Ok(());
        }
        let ending = match fault {
            Some(Fault::Die(Moment::BeforeCommand)) => {
                self.machine.die();
                return Ok(());
            }
            Some(Fault::Die(Moment::DuringCommand)) => Ending::Die(Arc::clone(&self.machine)),
            Some(Fault::Die(Moment::AfterCommand)) => {
                Ending::ReportAndDie(Arc::clone(&self.machine))
            }
            Some(Fault::StallDuringCommand) => Ending::Silence,
            _ => Ending::Report,
        };
        let command = Command {
            work,
            ending,
            variables: std::mem::take(&mut state.variables),
            terminal: state.terminal.take(),
            record: &self.machine.record,
            peer: self.peer,
            local: self.local,
        };
        match command.start(&self.machine.tasks, &self.machine.off, session.handle(), id) {
            Ok(command) => {
                state.command = Some(command);
                session.channel_success(id)?;
            }
            Err(error) => {
                tracing::warn!(machine = %self.machine.record.machine.name, %error, "cannot start a command");
                session.channel_failure(id)?;
            }
        }
        if fault == Some(Fault::DropDuringCommand) {
            self.cut.cancel();
        }
        Ok(())
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.authenticate(user, offer.public_key).await)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.authenticate(user, key.public_key).await)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Reply {
        self.logged_in.cancel();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Reply {
        if self.channels.len() >= CHANNEL_LIMIT {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // The channel's own queue is dropped: input arrives in `data`, which can wait.
        self.channels.insert(channel.id(), ChannelState::default());
        reply.accept().await;
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _session: &mut Session) -> Reply {
        match self.command(id) {
            Some(command) => command.send_input(data).await,
            None => Ok(()),
        }
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Reply {
        if let Some(command) = self.command(id) {
            if command.dies_at_end_of_input {
                self.machine.die();
            }
            command.end_input();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Reply {
        self.channels.remove(&id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _pixels_wide: u32,
        _pixels_high: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Reply {
        match self.channels.get_mut(&id) {
            Some(state) if state.command.is_none() => {
                state.terminal = Some(Terminal::new(term, columns, rows));
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        _pixels_wide: u32,
        _pixels_high: u32,
        session: &mut Session,
    ) -> Reply {
        if let Some(command) = self.command(id) {
            command.resize(columns, rows);
        }
        session.channel_success(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Reply {
        match self.channels.get_mut(&id) {
            Some(state) if may_set(name, value) && state.variables.len() < VARIABLE_LIMIT => {
                state.variables.push((name.to_owned(), value.to_owned()));
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _session: &mut Session) -> Reply {
        if let Some(command) = self.command(id) {
            command.signal(&signal);
        }
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Reply {
        self.start(id, Work::Shell, session).await
    }

    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Reply {
        self.start(id, Work::Exec(data.to_vec()), session).await
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Reply {
        let server = SFTP_SERVERS.iter().find(|path| Path::new(path).exists());
        match server {
            Some(path) if name == "sftp" => self.start(id, Work::Program(path), session).await,
            _ => session.channel_failure(id),
        }
    }
}

/// Whether a client can set a variable: its language, as with the servers of Debian and Fedora.
fn may_set(name: &str, value: &str) -> bool {
    (matches!(name, "LANG" | "LANGUAGE" | "COLORTERM") || name.starts_with("LC_"))
        && !name.contains(['=', '\0'])
        && !value.contains('\0')
        && name.len() + value.len() <= 4096
}
