//! One SSH connection: who is let in, and what is asked for on its channels.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use tokio_util::sync::CancellationToken;

use super::authorized_keys::is_authorized;
use super::command::{Command, Running, Terminal, Work};
use super::server::Shared;
use super::streams::Ending;
use crate::{Fault, Moment};

/// Channels at a time on one connection, as OpenSSH's `MaxSessions`.
const CHANNEL_LIMIT: usize = 10;
/// What a machine says in all when it floods its client, in bytes, and how much of it at once.
const FLOOD: usize = 64 << 20;
const FLOOD_PIECE: usize = 32 << 10;
/// Variables that a client may set on one channel.
const VARIABLE_LIMIT: usize = 64;
/// Where hosts keep the program behind `sftp` and `scp`.
const SFTP_SERVERS: [&str; 5] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/lib/sftp-server",
];

/// What a client has set up on a channel, and what runs there.
#[derive(Default)]
struct ChannelState {
    variables: Vec<(String, String)>,
    terminal: Option<Terminal>,
    running: Option<Running>,
}

/// The server's side of a connection. Its commands are killed when it is dropped.
pub(super) struct Session {
    shared: Arc<Shared>,
    peer: SocketAddr,
    local: SocketAddr,
    /// Cancelling it cuts the connection.
    cut: CancellationToken,
    logged_in: CancellationToken,
    channels: HashMap<ChannelId, ChannelState>,
}

type Reply = Result<(), russh::Error>;

impl Session {
    pub fn new(
        shared: Arc<Shared>,
        peer: SocketAddr,
        local: SocketAddr,
        cut: CancellationToken,
        logged_in: CancellationToken,
    ) -> Self {
        Self {
            shared,
            peer,
            local,
            cut,
            logged_in,
            channels: HashMap::new(),
        }
    }

    async fn judge(&self, user: &str, key: &russh::keys::PublicKey) -> Auth {
        if user == "root" && is_authorized(&self.shared.record.home(), key).await {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }

    /// What runs on a channel.
    fn running(&self, id: ChannelId) -> Option<&Running> {
        self.channels.get(&id)?.running.as_ref()
    }

    /// Says the same again and again, until the client leaves or has heard enough.
    fn flood(&self, text: &'static str, connection: Handle, channel: ChannelId) {
        let piece = text.repeat(FLOOD_PIECE.div_ceil(text.len().max(1)));
        let flood = async move {
            let mut sent = 0;
            while sent < FLOOD {
                let said = connection.extended_data(channel, 1, piece.clone()).await;
                if said.is_err() {
                    break;
                }
                sent += piece.len();
            }
        };
        let end = self.cut.clone();
        self.shared
            .tasks
            .spawn(end.run_until_cancelled_owned(flood));
    }

    /// Starts what a client asks for, unless something already runs on the channel.
    fn start(&mut self, id: ChannelId, work: Work, session: &mut russh::server::Session) -> Reply {
        let Some(state) = self.channels.get_mut(&id) else {
            return session.channel_failure(id);
        };
        if state.running.is_some() {
            return session.channel_failure(id);
        }
        let fault = self.shared.fault();
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
                self.shared.die();
                return Ok(());
            }
            Some(Fault::Die(Moment::DuringCommand)) => Ending::Die(Arc::clone(&self.shared)),
            Some(Fault::Die(Moment::AfterCommand)) => Ending::TellAndDie(Arc::clone(&self.shared)),
            Some(Fault::StallDuringCommand) => Ending::Silence,
            _ => Ending::Tell,
        };
        let command = Command {
            work,
            ending,
            variables: std::mem::take(&mut state.variables),
            terminal: state.terminal.take(),
            record: &self.shared.record,
            peer: self.peer,
            local: self.local,
        };
        match command.start(&self.shared.tasks, &self.shared.off, session.handle(), id) {
            Ok(running) => {
                state.running = Some(running);
                session.channel_success(id)?;
            }
            Err(error) => {
                tracing::warn!(machine = %self.shared.record.machine.name, %error, "cannot start a command");
                session.channel_failure(id)?;
            }
        }
        if fault == Some(Fault::DropDuringCommand) {
            self.cut.cancel();
        }
        Ok(())
    }
}

impl Handler for Session {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, offer.public_key).await)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, key.public_key).await)
    }

    async fn auth_succeeded(&mut self, _session: &mut russh::server::Session) -> Reply {
        self.logged_in.cancel();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut russh::server::Session,
    ) -> Reply {
        if self.channels.len() >= CHANNEL_LIMIT {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // The channel's own queue is let go: what arrives is taken in `data`, which can wait.
        self.channels.insert(channel.id(), ChannelState::default());
        reply.accept().await;
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _session: &mut russh::server::Session,
    ) -> Reply {
        match self.running(id) {
            Some(running) => running.feed(data).await,
            None => Ok(()),
        }
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut russh::server::Session) -> Reply {
        if let Some(running) = self.running(id) {
            if running.dies_at_end_of_input {
                self.shared.die();
            }
            running.feed_end();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut russh::server::Session,
    ) -> Reply {
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
        session: &mut russh::server::Session,
    ) -> Reply {
        match self.channels.get_mut(&id) {
            Some(state) if state.running.is_none() => {
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
        session: &mut russh::server::Session,
    ) -> Reply {
        if let Some(running) = self.running(id) {
            running.resize(columns, rows);
        }
        session.channel_success(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut russh::server::Session,
    ) -> Reply {
        match self.channels.get_mut(&id) {
            Some(state) if may_set(name, value) && state.variables.len() < VARIABLE_LIMIT => {
                state.variables.push((name.to_owned(), value.to_owned()));
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _session: &mut russh::server::Session,
    ) -> Reply {
        if let Some(running) = self.running(id) {
            running.signal(&signal);
        }
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut russh::server::Session,
    ) -> Reply {
        self.start(id, Work::Shell, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut russh::server::Session,
    ) -> Reply {
        self.start(id, Work::Exec(data.to_vec()), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut russh::server::Session,
    ) -> Reply {
        let server = SFTP_SERVERS.iter().find(|path| Path::new(path).exists());
        match server {
            Some(path) if name == "sftp" => self.start(id, Work::Program(path), session),
            _ => session.channel_failure(id),
        }
    }
}

/// What Debian's and Fedora's servers accept: the client's language.
fn may_set(name: &str, value: &str) -> bool {
    (matches!(name, "LANG" | "LANGUAGE" | "COLORTERM") || name.starts_with("LC_"))
        && !name.contains(['=', '\0'])
        && !value.contains('\0')
        && name.len() + value.len() <= 4096
}
