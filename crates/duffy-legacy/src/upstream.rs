//! Calls to the web API, within limits on their time and number.
//!
//! Each call blocks a thread. A call that has begun goes on when its client hangs up.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use duffy_client::{Client, ClientError, Reply, Settings};
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Waiting for one of the calls before to end.
    pub queue: Duration,
    /// Reading a list.
    pub read: Duration,
    /// Changing a session. Longer than the web API takes to give up by itself.
    pub write: Duration,
    /// Being granted a session, for which nodes are prepared. Longer than the web API takes to give
    /// up by itself: a session that was granted after we went away would be nobody's.
    pub grant: Duration,
    /// Saying whether it is well.
    pub health: Duration,
    /// First pause before a session that nobody took is retired again; it doubles each time.
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
    /// Asks for a session.
    Grant,
    /// Asks how it is.
    Health,
}

/// How many calls of each kind there are at once. Together far below the threads of tokio's pool.
const READS: usize = crate::LISTS;
const WRITES: usize = 64;
const GRANTS: usize = 128;
const HEALTH: usize = 4;

/// For whom a call is made.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name and key of the tenant; `None` asks as nobody.
    pub tenant: Option<(String, SecretString)>,
    /// Id of the request that makes the call.
    pub request_id: Arc<str>,
    /// Address of the client that makes it.
    pub client: Option<IpAddr>,
}

/// Why a call gave nothing. The cause was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// The web API refuses, with this status.
    Refused(u16),
    /// No answer of the web API, or none to be made use of.
    NoAnswer,
}

impl CallError {
    /// Whether the key is not good for what was asked.
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
    client: Client,
    times: Times,
    tasks: TaskTracker,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    grants: Arc<Semaphore>,
    health: Arc<Semaphore>,
}

impl Upstream {
    /// The web API at `dest`, which is its base URL without `/api/v1`.
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
            client: client.without_tenant(),
            times,
            tasks: TaskTracker::new(),
            reads: Arc::new(Semaphore::new(READS)),
            writes: Arc::new(Semaphore::new(WRITES)),
            grants: Arc::new(Semaphore::new(GRANTS)),
            health: Arc::new(Semaphore::new(HEALTH)),
        })
    }

    /// Where calls run.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// First pause before a session that nobody took is retired again.
    pub fn retire_pause(&self) -> Duration {
        self.times.retire_pause
    }

    /// Makes a call with `ask`, and reads the reply with `read`, which gives `None` for a reply that makes no sense. If the client
    /// hangs up while this waits for other calls to end, there is no call.
    pub async fn call<T, A, R>(
        &self,
        kind: Kind,
        caller: &Caller,
        ask: A,
        read: R,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        A: FnOnce(&Client) -> Result<Reply, ClientError> + Send + 'static,
        R: FnOnce(&Reply) -> Option<T> + Send + 'static,
    {
        let (limiter, limit) = match kind {
            Kind::Read => (&self.reads, self.times.read),
            Kind::Write => (&self.writes, self.times.write),
            Kind::Grant => (&self.grants, self.times.grant),
            Kind::Health => (&self.health, self.times.health),
        };
        let wait = Arc::clone(limiter).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(self.times.queue, wait).await else {
            tracing::error!("too many requests wait for the web API");
            return Err(CallError::NoAnswer);
        };
        let client = self.client_for(caller, limit)?;
        let span = tracing::Span::current();
        let call = self.tasks.spawn_blocking(move || {
            let _in_span = span.entered();
            let answer = ask(&client);
            drop(permit);
            match answer {
                Ok(reply) => read(&reply).ok_or_else(|| {
                    tracing::error!(
                        upstream.request_id = reply.request_id(),
                        upstream.status = reply.status(),
                        "the web API's reply makes no sense"
                    );
                    CallError::NoAnswer
                }),
                Err(error) => Err(explain(&error)),
            }
        });
        call.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a call to the web API ended");
            Err(CallError::NoAnswer)
        })
    }

    fn client_for(&self, caller: &Caller, limit: Duration) -> Result<Client, CallError> {
        let client = match &caller.tenant {
            Some((name, key)) => self.client.with_tenant(name, key),
            None => Ok(self.client.clone()),
        };
        client
            .and_then(|client| client.with_request_id(&caller.request_id))
            .and_then(|client| match caller.client {
                Some(address) => client.with_forwarded_for(address),
                None => Ok(client),
            })
            .map(|client| client.with_timeout(Some(limit)))
            .map_err(|error| explain(&error))
    }
}

/// Logs why a call failed. The span has the request's own id, which went with the call.
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
