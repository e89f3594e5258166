//! A server that follows the protocol as far as it must, and lies in what it says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::Algorithm;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Sig};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::raw::EVIL;
use crate::sshd::make_key;

/// How the server lies.
#[derive(Clone, Debug)]
pub enum Lie {
    /// Refuses every login, with a long banner before.
    Banner,
    CloseAtLogin,
    CloseAtChannel,
    RefuseChannel,
    CloseAtCommand,
    RefuseCommand,
    /// Accepts the command, and then sends nothing.
    Silence,
    /// Reads no input.
    NoWindow,
    /// Sends the same for ever: on standard output, or as extended data of this kind.
    Endless(Option<u32>, &'static [u8]),
    /// Ends the command without a status.
    NoStatus,
    /// Ends the command with this status, and this text on standard error.
    Exit(u32, String),
    /// Ends the command by a signal of this name, with a message.
    Signal(String),
}

pub struct LiarServer {
    pub address: SocketAddr,
    commanded: Arc<Notify>,
    accepting: JoinHandle<()>,
}

impl LiarServer {
    /// Waits for a command.
    pub async fn commanded(&self) {
        self.commanded.notified().await;
    }

    pub async fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(Config {
            keys: vec![make_key(Algorithm::Ed25519)],
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            window_size: if matches!(lie, Lie::NoWindow) {
                1
            } else {
                1 << 20
            },
            ..Config::default()
        });
        let commanded = Arc::new(Notify::new());
        let notify = Arc::clone(&commanded);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let liar = Liar {
                    lie: lie.clone(),
                    channel: None,
                    commanded: Arc::clone(&notify),
                };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = russh::server::run_stream(config, stream, liar).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self {
            address,
            commanded,
            accepting,
        }
    }
}

impl Drop for LiarServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Liar {
    lie: Lie,
    channel: Option<Channel<Msg>>,
    commanded: Arc<Notify>,
}

type Reply = Result<(), russh::Error>;

impl Handler for Liar {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok(matches!(self.lie, Lie::Banner).then(|| EVIL.repeat(5_000)))
    }

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        _offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        match self.lie {
            Lie::CloseAtLogin => Err(russh::Error::Disconnect),
            Lie::Banner => Ok(Auth::reject()),
            _ => Ok(Auth::Accept),
        }
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Reply {
        match self.lie {
            Lie::CloseAtChannel => return Err(russh::Error::Disconnect),
            Lie::RefuseChannel => reply.reject(ChannelOpenFailure::ResourceShortage).await,
            _ => reply.accept().await,
        }
        self.channel = Some(channel);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Reply {
        self.commanded.notify_one();
        if matches!(self.lie, Lie::CloseAtCommand) {
            return Err(russh::Error::Disconnect);
        }
        if matches!(self.lie, Lie::RefuseCommand) {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        match self.lie.clone() {
            Lie::Endless(kind, words) => {
                let Some(channel) = self.channel.take() else {
                    return Ok(());
                };
                let words = words.repeat(16_384 / words.len());
                // It waits for the client's window, and ends with the connection.
                tokio::spawn(async move {
                    loop {
                        let said = match kind {
                            None => channel.data(&words[..]).await,
                            Some(kind) => channel.extended_data(kind, &words[..]).await,
                        };
                        if said.is_err() {
                            return;
                        }
                    }
                });
                return Ok(());
            }
            Lie::Exit(status, words) => {
                session.extended_data(id, 1, words.into_bytes())?;
                session.exit_status_request(id, status)?;
            }
            Lie::Signal(name) => {
                let message = EVIL.repeat(300);
                session.exit_signal_request(id, Sig::Custom(name), false, &message, EVIL)?;
            }
            Lie::NoStatus => {}
            _ => return Ok(()),
        }
        session.eof(id)?;
        session.close(id)
    }
}
