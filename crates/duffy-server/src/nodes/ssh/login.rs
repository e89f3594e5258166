//! Logging in: first with the keys of files, then with those of the agent.

use std::path::Path;
use std::sync::Arc;

use russh::MethodKind;
use russh::client::{AuthResult, Handle, Handler};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey};
use tokio::net::UnixStream;

use super::SshError;
use super::destination::Destination;
use super::error::one_line;
use super::identities::Identity;

/// Logs in with the first key that the node accepts.
pub(super) async fn log_in<H: Handler>(
    handle: &mut Handle<H>,
    destination: &Destination<'_>,
    mut identities: Vec<Arc<Identity>>,
) -> Result<(), SshError> {
    let user = destination.profile.user.as_str();
    let mut agent = Agent::open(handle, destination).await;
    if let Some(agent) = &agent
        && !destination.identities_only()
    {
        identities.extend(agent.list_others(&identities));
    }
    let mut rsa_hash = None;
    let mut tried = Vec::new();
    for identity in identities {
        let (name, public) = (&identity.name, &identity.public);
        let hash = match rsa_hash {
            _ if !public.algorithm().is_rsa() => None,
            Some(hash) => hash,
            // The best one that the node has announced. `None` is SHA-1.
            None => {
                let announced = handle.best_supported_rsa_hash().await;
                let best = announced.ok().flatten();
                *rsa_hash.insert(best.unwrap_or(Some(HashAlg::Sha512)))
            }
        };
        let result = match (&identity.private, &mut agent) {
            (Some(private), _) => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(private), hash);
                let result = handle.authenticate_publickey(user, key).await;
                result.map_err(|error| error.to_string())
            }
            (None, Some(agent)) if agent.has(public) => {
                let (public, signer) = (public.clone(), &mut agent.client);
                let result = handle.authenticate_publickey_with(user, public, hash, signer);
                result.await.map_err(|error| error.to_string())
            }
            (None, _) => {
                tried.push(format!(
                    "{name} (skipped: no agent has it, and it needs a passphrase)"
                ));
                continue;
            }
        };
        // The node hangs up after too many tries.
        let mut over = handle.is_closed();
        match result {
            Ok(AuthResult::Success) => return Ok(()),
            Ok(AuthResult::Failure {
                remaining_methods,
                partial_success,
            }) => {
                over |= !remaining_methods.contains(&MethodKind::PublicKey);
                tried.push(if partial_success {
                    format!("{name} (accepted, but it wants more than a key)")
                } else {
                    name.clone()
                });
            }
            Err(reason) => tried.push(format!("{name} ({reason})")),
        }
        if over {
            break;
        }
    }
    if tried.is_empty() {
        if handle.is_closed() {
            return Err(destination.lost("the node closed it"));
        }
        let files = destination.list_identity_files();
        tried.push(format!("no key, as there is none in {files} or an agent"));
    }
    Err(SshError::Auth {
        host: destination.target.name(),
        user: user.to_owned(),
        tried: one_line(&tried.join(", ")),
    })
}

/// A connection to an agent, and the agent's keys.
struct Agent {
    client: AgentClient<UnixStream>,
    keys: Vec<(PublicKey, String)>,
}

impl Agent {
    async fn open<H: Handler>(handle: &Handle<H>, destination: &Destination<'_>) -> Option<Self> {
        let socket = destination.profile.agent.as_deref()?;
        Self::connect(handle, socket)
            .await
            .inspect_err(|error| {
                tracing::debug!(socket = %socket.display(), %error, "no SSH agent");
            })
            .ok()
    }

    async fn connect<H: Handler>(
        handle: &Handle<H>,
        socket: &Path,
    ) -> Result<Self, russh::keys::Error> {
        let mut client = AgentClient::connect_uds(socket).await?;
        if let Some(binding) = handle.agent_session_binding() {
            // Older agents do not know this request, but they have no keys that need it either.
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

    /// The keys that are not among these.
    fn list_others(&self, known: &[Arc<Identity>]) -> Vec<Arc<Identity>> {
        let is_known = |key: &PublicKey| {
            let mut known = known.iter().map(|identity| identity.public.key_data());
            known.any(|known| known == key.key_data())
        };
        let others = self.keys.iter().filter(|(key, _)| !is_known(key));
        let identities = others.map(|(key, comment)| Identity {
            name: format!("the agent's key {comment}"),
            public: key.clone(),
            private: None,
        });
        identities.map(Arc::new).collect()
    }

    fn has(&self, wanted: &PublicKey) -> bool {
        self.keys
            .iter()
            .any(|(key, _)| key.key_data() == wanted.key_data())
    }
}
