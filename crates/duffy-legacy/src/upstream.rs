//! Calls to the web API, within limits on their time and number.
//!
//! Each call blocks a thread. A call that has begun goes on when its client hangs up.

use std::sync::Arc;
use std::time::Duration;

use duffy_client::{Client, ClientError, Reply, Settings};
use duffy_web::RequestInfo;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Limits on the time of calls.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Time to wait until an earlier call ends.
    pub queue: Duration,
    /// Time to read a list.
    pub read: Duration,
    /// Time to change a session. It is longer than the web API's own limit.
    pub write: Duration,
    /// Time to request a session, whose nodes are prepared meanwhile. It is longer than the web API's own limit: nobody would
    /// know of a session that is granted later.
    pub grant: Duration,
    /// Time to check the health.
    pub health: Duration,
    /// First pause before a session that no client received is retired again. It doubles with each attempt.
    pub retire_pause: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            queue: Duration::from_secs(5),
            read: Duration::from_secs(30),
            write: Duration::from_secs(65),
            grant: Duration::from_mins(16),
            health: Duration::from_secs(5),
            retire_pause: Duration::from_secs(1),
        }
    }
}

/// Kinds of calls. Each has a limit of its own, so that slow calls do not delay others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads a list.
    Read,
    /// Changes a session.
    Write,
    /// Requests a session.
    Grant,
    /// Checks the health.
    Health,
}

/// Most concurrent calls that read a list. Making a large one takes several times its memory.
pub const READS: usize = 4;

/// Most concurrent calls of each kind, in the order of [`Kind`]. Their sum is far below the number of tokio's blocking threads.
const MAX_CALLS: [usize; 4] = [READS, 64, 128, 4];

/// The client that a call is made for.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name and key of the tenant. `None` sends no credentials.
    pub tenant: Option<(String, SecretString)>,
    /// The request that makes the call.
    pub info: RequestInfo,
}

/// Why a call has no result. The cause is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// The web API refuses, with this status.
    Refused(u16),
    /// The web API does not answer, or its answer is invalid.
    NoAnswer,
}

impl CallError {
    /// Whether the web API does not accept the key for this.
    pub fn is_denied(self) -> bool {
        matches!(self, Self::Refused(401 | 403))
    }

    /// Whether the same call may succeed later.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::NoAnswer | Self::Refused(408 | 429 | 500..))
    }
}

/// The web API.
#[derive(Debug)]
pub struct Upstream {
    /// Limits on the time of calls.
    pub times: Times,
    /// The running calls.
    pub tasks: TaskTracker,
    client: Client,
    permits: [Arc<Semaphore>; 4],
}

impl Upstream {
    /// Returns the web API at `dest`, which is its base URL without `/api/v1`.
    pub fn new(dest: &str, times: Times) -> Result<Self, ClientError> {
        let client = Client::new(&Settings {
            url: format!("{}/api/v1", dest.trim_end_matches('/')),
            name: String::new(),
            key: SecretString::default(),
            timeout: None,
            user_agent: format!("duffy-legacy/{}", env!("CARGO_PKG_VERSION")),
            ca_file: None,
        })?;
        Ok(Self {
            times,
            tasks: TaskTracker::new(),
            client: client.without_tenant(),
            permits: MAX_CALLS.map(|max| Arc::new(Semaphore::new(max))),
        })
    }

    /// Makes a call with `ask`, and reads the reply with `read`, which returns `None` for an invalid one. If the client hangs up
    /// while this waits for a permit, there is no call.
    pub async fn call<T: Send + 'static>(
        &self,
        kind: Kind,
        caller: &Caller,
        ask: impl FnOnce(&Client) -> Result<Reply, ClientError> + Send + 'static,
        read: impl FnOnce(&Reply) -> Option<T> + Send + 'static,
    ) -> Result<T, CallError> {
        let permit = Arc::clone(&self.permits[kind as usize]).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(self.times.queue, permit).await else {
            tracing::error!("too many requests wait for the web API");
            return Err(CallError::NoAnswer);
        };
        let client = self.client_for(kind, caller);
        let client = client.map_err(|error| explain(&error))?;
        let span = tracing::Span::current();
        let call = self.tasks.spawn_blocking(move || {
            let _in_span = span.entered();
            let answer = ask(&client);
            drop(permit);
            let reply = answer.map_err(|error| explain(&error))?;
            read(&reply).ok_or_else(|| {
                tracing::error!(
                    upstream.request_id = reply.request_id(),
                    upstream.status = reply.status(),
                    "the web API's reply is invalid"
                );
                CallError::NoAnswer
            })
        });
        call.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a call to the web API was aborted");
            Err(CallError::NoAnswer)
        })
    }

    fn client_for(&self, kind: Kind, caller: &Caller) -> Result<Client, ClientError> {
        let mut client = self.client.clone().with_request_id(&caller.info.id)?;
        if let Some((name, key)) = &caller.tenant {
            client = client.with_tenant(name, key)?;
        }
        if let Some(address) = caller.info.client {
            client = client.with_forwarded_for(address)?;
        }
        let limit = match kind {
            Kind::Read => self.times.read,
            Kind::Write => self.times.write,
            Kind::Grant => self.times.grant,
            Kind::Health => self.times.health,
        };
        Ok(client.with_timeout(Some(limit)))
    }
}

/// Logs why a call failed. The span has the id of the request, which the call had too.
fn explain(error: &ClientError) -> CallError {
    let ClientError::Refused(refusal) = error else {
        tracing::error!(%error, "the web API does not answer");
        return CallError::NoAnswer;
    };
    let (status, detail) = (refusal.status, &refusal.detail);
    let id = refusal.request_id.as_deref();
    if status >= 500 {
        tracing::error!(upstream.request_id = id, upstream.status = status, %detail, "the web API fails");
    } else {
        tracing::info!(upstream.request_id = id, upstream.status = status, %detail, "the web API refuses");
    }
    CallError::Refused(status)
}
