//! Logging in: the keys of files, then those of the agent.

use std::path::Path;
use std::sync::Arc;

use russh::MethodKind;
use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey};
use tokio::net::UnixStream;

use super::error::one_line;
use super::identities::Identity;
use super::native::Verifier;
use super::{Destination, SshError};

/// The hash that the node wants with RSA keys; none is the SHA-1 of old.
enum RsaHash {
    Unknown,
    Known(Option<HashAlg>),
}

/// A login under way: what was tried, and whether the node still listens.
struct Login<'a> {
    handle: &'a mut Handle<Verifier>,
    user: &'a str,
    rsa_hash: RsaHash,
    tried: Vec<String>,
    over: bool,
}

impl Login<'_> {
    /// The hash to sign with, which only matters for RSA: the best that the node has announced.
    async fn hash_for(&mut self, key: &PublicKey) -> Option<HashAlg> {
        if !key.algorithm().is_rsa() {
            return None;
        }
        if let RsaHash::Known(hash) = self.rsa_hash {
            return hash;
        }
        let announced = self.handle.best_supported_rsa_hash().await;
        let hash = announced.ok().flatten().unwrap_or(Some(HashAlg::Sha512));
        self.rsa_hash = RsaHash::Known(hash);
        hash
    }

    fn judge(&mut self, name: String, result: Result<AuthResult, String>) -> bool {
        match result {
            Ok(AuthResult::Success) => return true,
            Ok(AuthResult::Failure {
                remaining_methods,
                partial_success,
            }) => {
                self.over = !remaining_methods.contains(&MethodKind::PublicKey);
                self.tried.push(if partial_success {
                    format!("{name} (accepted, but it wants more than a key)")
                } else {
                    name
                });
            }
            Err(reason) => self.tried.push(format!("{name} ({reason})")),
        }
        // The node hangs up after too many tries.
        self.over |= self.handle.is_closed();
        false
    }
}

/// Logs in with the first key that the node accepts.
pub(super) async fn log_in(
    handle: &mut Handle<Verifier>,
    destination: &Destination<'_>,
    identities: &[Arc<Identity>],
) -> Result<(), SshError> {
    let user = destination.profile.user.as_str();
    let mut agent = Agent::open(handle, destination).await;
    let mut login = Login {
        handle,
        user,
        rsa_hash: RsaHash::Unknown,
        tried: Vec::new(),
        over: false,
    };
    for identity in identities {
        let name = identity.path.display().to_string();
        let hash = login.hash_for(&identity.public).await;
        let result = match (&identity.private, &mut agent) {
            (Some(private), _) => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(private), hash);
                let result = login.handle.authenticate_publickey(user, key).await;
                result.map_err(|error| error.to_string())
            }
            (None, Some(agent)) if agent.has(&identity.public) => {
                agent.log_in(&mut login, &identity.public, hash).await
            }
            (None, _) => {
                login.tried.push(format!(
                    "{name} (passed over: no agent has it, and it needs a passphrase)"
                ));
                continue;
            }
        };
        if login.judge(name, result) {
            return Ok(());
        }
        if login.over {
            break;
        }
    }
    if let Some(agent) = &mut agent
        && !destination.identities_only()
    {
        for (key, comment) in std::mem::take(&mut agent.keys) {
            let known = |identity: &Arc<Identity>| identity.public.key_data() == key.key_data();
            if identities.iter().any(known) {
                continue;
            }
            if login.over {
                break;
            }
            let hash = login.hash_for(&key).await;
            let result = agent.log_in(&mut login, &key, hash).await;
            if login.judge(format!("the agent's key {comment}"), result) {
                return Ok(());
            }
        }
    }
    if login.tried.is_empty() && login.handle.is_closed() {
        return Err(SshError::Lost {
            host: destination.name(),
            during: "logging in",
            reason: "the node closed it".to_owned(),
        });
    }
    let tried = if login.tried.is_empty() {
        let files: Vec<_> = destination
            .identity_files()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        format!(
            "no key, as there is none in {} or an agent",
            files.join(", ")
        )
    } else {
        login.tried.join(", ")
    };
    Err(SshError::Auth {
        host: destination.name(),
        user: user.to_owned(),
        tried: one_line(&tried),
    })
}

/// An agent that answers, and the keys that it has.
struct Agent {
    client: AgentClient<UnixStream>,
    keys: Vec<(PublicKey, String)>,
}

impl Agent {
    async fn open(handle: &Handle<Verifier>, destination: &Destination<'_>) -> Option<Self> {
        let socket = destination.profile.agent.socket()?;
        match Self::connect(handle, &socket).await {
            Ok(agent) => Some(agent),
            Err(error) => {
                tracing::debug!(socket = %socket.display(), %error, "no SSH agent");
                None
            }
        }
    }

    async fn connect(handle: &Handle<Verifier>, socket: &Path) -> Result<Self, russh::keys::Error> {
        let mut client = AgentClient::connect_uds(socket).await?;
        if let Some(binding) = handle.agent_session_binding() {
            // Older agents do not know of it; they have no keys that need it either.
            let _ = client.bind_session(binding, false).await;
        }
        let keys = client
            .request_identities()
            .await?
            .into_iter()
            .filter_map(|identity| match identity {
                AgentIdentity::PublicKey { key, comment } => Some((key, comment)),
                AgentIdentity::Certificate { .. } => None,
            })
            .collect();
        Ok(Self { client, keys })
    }

    fn has(&self, wanted: &PublicKey) -> bool {
        self.keys
            .iter()
            .any(|(key, _)| key.key_data() == wanted.key_data())
    }

    async fn log_in(
        &mut self,
        login: &mut Login<'_>,
        key: &PublicKey,
        hash: Option<HashAlg>,
    ) -> Result<AuthResult, String> {
        login
            .handle
            .authenticate_publickey_with(login.user, key.clone(), hash, &mut self.client)
            .await
            .map_err(|error| error.to_string())
    }
}
