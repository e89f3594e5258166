//! Limits the memory of replies that clients have not read yet.
//!
//! The server keeps a reply until its client reads it. All unsent replies share budgets of bytes. When a budget is used up, the
//! replies that made no progress for the longest time are cut off.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::Response;
use hyper::body::Body;
use slab::Slab;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activity::{RunningRequest, WaitingRequest};
use crate::mutex::lock;
use crate::shared_bytes::{SMALL, SharedBytes, StaticBytes};
use crate::stream_executor;

/// Most bytes of small replies, with their overhead.
const SMALL_BUDGET: usize = 8 * 1024 * 1024;

/// Most bytes of large replies. A reply that is even larger is sent alone.
const LARGE_BUDGET: usize = 16 * 1024 * 1024;

/// What a reply costs besides its bytes: its task, its head, the state of its stream.
const OVERHEAD: usize = 4 * 1024;

/// How long a reply may make no progress while others wait for its memory.
const GRACE: Duration = Duration::from_secs(1);

/// How long a reply waits for memory until replies are cut off that do make progress, the slowest first.
const PATIENCE: Duration = Duration::from_secs(5);

/// Interval of looking for replies to cut off, and the time that a reset has to take effect.
const INTERVAL: Duration = Duration::from_millis(100);

/// All replies of a server that are not sent yet.
#[derive(Debug)]
pub struct UnsentReplies {
    small: ByteBudget,
    large: ByteBudget,
    registered: Mutex<Slab<Arc<UnsentReply>>>,
}

/// Memory for replies, in bytes.
#[derive(Debug)]
struct ByteBudget {
    size: usize,
    free: Arc<Semaphore>,
    /// When replies were last cut off for this budget.
    freed_at: Mutex<Option<Instant>>,
    /// Returns how many bytes of this budget a reply holds.
    held: fn(&UnsentReply) -> usize,
}

/// A reply that is being sent.
#[derive(Debug)]
struct UnsentReply {
    /// What it holds of the small budget.
    bytes: Option<OwnedSemaphorePermit>,
    /// What it holds of the large budget.
    shared: Option<SharedBytes>,
    /// Resets the stream, in HTTP/2.
    reset: Option<CancellationToken>,
    state: Mutex<State>,
    // The order of the fields is that of their drops.
    _waiting: WaitingRequest,
    running: RunningRequest,
}

#[derive(Debug)]
struct State {
    /// When it made progress for the last time.
    progress: Instant,
    /// When it was cut off.
    cut: Option<Instant>,
}

/// Counts a reply as unsent until its body and all chunks of it are dropped.
#[derive(Debug)]
pub struct SendPermit {
    replies: Arc<UnsentReplies>,
    number: usize,
    reply: Arc<UnsentReply>,
}

impl UnsentReplies {
    /// No replies yet.
    pub fn new() -> Self {
        Self {
            small: ByteBudget::new(SMALL_BUDGET, |reply| {
                let bytes = reply.bytes.as_ref();
                bytes.map_or(0, OwnedSemaphorePermit::num_permits)
            }),
            large: ByteBudget::new(LARGE_BUDGET, |reply| {
                let shared = reply.shared.as_ref();
                shared.map_or(0, SharedBytes::size_per_reply)
            }),
            registered: Mutex::default(),
        }
    }

    /// Waits until there is memory for a reply, and counts the reply until it is sent or dropped.
    pub async fn admit(
        self: &Arc<Self>,
        reply: &mut Response,
        running: RunningRequest,
    ) -> SendPermit {
        let length = usize::try_from(reply.body().size_hint().lower()).unwrap_or(usize::MAX);
        let extensions = reply.extensions_mut();
        let is_static = extensions.remove::<StaticBytes>().is_some();
        let (cost, shared) = match extensions.remove::<SharedBytes>() {
            Some(shared) if shared.size() > SMALL => (OVERHEAD, Some(shared)),
            _ if is_static => (OVERHEAD, None),
            _ if length > SMALL => (OVERHEAD, Some(SharedBytes::of_size(length))),
            _ => (OVERHEAD + length, None),
        };
        if let Some(shared) = &shared {
            shared.count(self.large.acquire(self, shared.size())).await;
        }
        let reply = Arc::new(UnsentReply {
            bytes: self.small.acquire(self, cost).await,
            shared,
            reset: stream_executor::current_reset(),
            _waiting: WaitingRequest::begin(&running.activity),
            running,
            state: Mutex::new(State {
                progress: Instant::now(),
                cut: None,
            }),
        });
        SendPermit {
            replies: Arc::clone(self),
            number: lock(&self.registered).insert(Arc::clone(&reply)),
            reply,
        }
    }

    /// Cuts off each reply that makes no progress for `longest`. Never returns.
    pub async fn cut_off_stalled(&self, longest: Duration) {
        loop {
            tokio::time::sleep(longest / 4).await;
            for (_, reply) in self.stalled(longest) {
                tracing::debug!("a reply that its client does not read is cut off");
                reply.cut_off();
            }
        }
    }

    /// The replies that made no progress for `pause`, the longest pause first.
    fn stalled(&self, pause: Duration) -> Vec<(Instant, Arc<UnsentReply>)> {
        let now = Instant::now();
        let mut stalled: Vec<_> = lock(&self.registered)
            .iter()
            .map(|(_, reply)| (lock(&reply.state).progress, Arc::clone(reply)))
            .filter(|(progress, _)| *progress + pause <= now)
            .collect();
        stalled.sort_by_key(|(progress, _)| *progress);
        stalled
    }
}

impl ByteBudget {
    fn new(size: usize, held: fn(&UnsentReply) -> usize) -> Self {
        Self {
            size,
            free: Arc::new(Semaphore::new(size)),
            freed_at: Mutex::default(),
            held,
        }
    }

    /// Acquires `bytes` in the order of requests. While there are not enough, stalled replies are cut off.
    async fn acquire(&self, replies: &UnsentReplies, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = bytes.min(self.size) as u32;
        let begun = Instant::now();
        let acquired = Arc::clone(&self.free).acquire_many_owned(bytes);
        let mut acquired = std::pin::pin!(acquired);
        let mut wait = Duration::ZERO;
        loop {
            if let Ok(acquired) = tokio::time::timeout(wait, acquired.as_mut()).await {
                return acquired.ok();
            }
            let pause = if begun.elapsed() < PATIENCE {
                GRACE
            } else {
                Duration::ZERO
            };
            self.free(replies, bytes as usize, pause);
            wait = INTERVAL;
        }
    }

    /// Cuts off replies that made no progress for `pause`, until they held `bytes`, or a quarter of the budget if that is more.
    fn free(&self, replies: &UnsentReplies, bytes: usize, pause: Duration) {
        let now = Instant::now();
        let mut freed_at = lock(&self.freed_at);
        if freed_at.is_some_and(|last| last + INTERVAL > now) {
            return;
        }
        *freed_at = Some(now);
        drop(freed_at);
        let wanted = bytes.max(self.size / 4);
        let mut freed = 0;
        for (_, reply) in replies.stalled(pause) {
            if freed >= wanted {
                return;
            }
            let held = (self.held)(&reply);
            if held > 0 {
                tracing::debug!("a reply that its client does not read is cut off for others");
                reply.cut_off();
                freed += held;
            }
        }
    }
}

impl UnsentReply {
    /// Resets its stream. Where there is none, or the reset had no effect, closes the connection: if the client reads nothing at
    /// all, the chunks that HTTP/2 has buffered are kept until the connection ends.
    fn cut_off(&self) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        match (state.cut, &self.reset) {
            (Some(cut), _) if cut + INTERVAL > now => return,
            (None, Some(reset)) => reset.cancel(),
            _ => self.running.activity.cut_off(),
        }
        state.cut = Some(now);
    }
}

impl SendPermit {
    /// Records that a chunk of the reply was sent.
    pub fn note_progress(&self) {
        let now = Instant::now();
        lock(&self.reply.state).progress = now;
        self.reply.running.activity.note_progress(now);
    }
}

impl Drop for SendPermit {
    fn drop(&mut self) {
        lock(&self.replies.registered).remove(self.number);
    }
}
