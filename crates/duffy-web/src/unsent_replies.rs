//! Limits the memory of replies that clients have not read yet.
//!
//! The server keeps a reply until its client reads it. All unsent replies share budgets of bytes. When a budget is used up, the
//! replies that made no progress for the longest time are cut off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::response::Response;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, RunningRequest};
use crate::reply_body::ReplyBody;
use crate::shared_bytes::{SharedBytes, StaticBytes};
use crate::stream_executor;

/// Most bytes of small replies, with their overhead.
const SMALL_BUDGET: usize = 8 * 1024 * 1024;

/// Most bytes of large replies. A reply that is even larger is sent alone.
const LARGE_BUDGET: usize = 16 * 1024 * 1024;

/// Largest reply that counts as small.
pub const SMALL: usize = 16 * 1024;

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
    registered: Mutex<Registered>,
}

/// Memory for replies, in bytes.
#[derive(Debug)]
struct ByteBudget {
    size: usize,
    free: Arc<Semaphore>,
    /// When replies were last cut off for this budget.
    freed_at: Mutex<Option<Instant>>,
    /// How many bytes of this budget a reply holds.
    held: fn(&UnsentReply) -> usize,
}

#[derive(Debug, Default)]
struct Registered {
    next: u64,
    by_number: HashMap<u64, Arc<UnsentReply>>,
}

/// A reply that is being sent.
#[derive(Debug)]
struct UnsentReply {
    activity: Arc<Activity>,
    /// Resets the stream, in HTTP/2.
    reset: Option<CancellationToken>,
    /// How many bytes of the small budget it holds.
    cost: usize,
    /// What it holds of the large budget.
    shared: Option<SharedBytes>,
    state: Mutex<State>,
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
    number: u64,
    reply: Arc<UnsentReply>,
    _bytes: Option<OwnedSemaphorePermit>,
    _running: RunningRequest,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UnsentReplies {
    /// No replies yet.
    pub fn new() -> Self {
        Self {
            small: ByteBudget::new(SMALL_BUDGET, |reply| reply.cost),
            large: ByteBudget::new(LARGE_BUDGET, |reply| {
                let shared = reply.shared.as_ref();
                shared.map_or(0, SharedBytes::size_per_reply)
            }),
            registered: Mutex::default(),
        }
    }

    /// Waits until there is memory for a reply, and counts the reply until it is sent or dropped.
    pub async fn admit(
        this: &Arc<Self>,
        reply: Response,
        mut running: RunningRequest,
    ) -> hyper::Response<ReplyBody> {
        let (mut head, body) = reply.into_parts();
        let is_static = head.extensions.remove::<StaticBytes>().is_some();
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let (cost, shared) = match head.extensions.remove::<SharedBytes>() {
            Some(shared) if shared.size() > SMALL => (OVERHEAD, Some(shared)),
            _ if is_static => (OVERHEAD, None),
            _ if length > SMALL => (OVERHEAD, Some(SharedBytes::of_size(length))),
            _ => (OVERHEAD + length, None),
        };
        if let Some(shared) = &shared {
            let acquire = this.large.acquire(this, shared.size());
            shared.count(acquire).await;
        }
        let bytes = this.small.acquire(this, cost).await;
        running.wait();
        let reply = Arc::new(UnsentReply {
            activity: Arc::clone(running.activity()),
            reset: stream_executor::current_reset(),
            cost,
            shared,
            state: Mutex::new(State {
                progress: Instant::now(),
                cut: None,
            }),
        });
        let permit = SendPermit {
            replies: Arc::clone(this),
            number: lock(&this.registered).add(&reply),
            reply,
            _bytes: bytes,
            _running: running,
        };
        hyper::Response::from_parts(head, ReplyBody::new(body, permit))
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
        let registered = lock(&self.registered);
        let mut stalled: Vec<_> = registered
            .by_number
            .values()
            .map(|reply| (lock(&reply.state).progress, reply))
            .filter(|(progress, _)| *progress + pause <= now)
            .map(|(progress, reply)| (progress, Arc::clone(reply)))
            .collect();
        drop(registered);
        stalled.sort_by_key(|(progress, _)| *progress);
        stalled
    }
}

impl Registered {
    fn add(&mut self, reply: &Arc<UnsentReply>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, Arc::clone(reply));
        number
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
        let last = lock(&self.freed_at).replace(now);
        if let Some(last) = last.filter(|last| *last + INTERVAL > now) {
            *lock(&self.freed_at) = Some(last);
            return;
        }
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
            _ => self.activity.cut_off(),
        }
        state.cut = Some(now);
    }
}

impl SendPermit {
    /// Records that a chunk of the reply was sent.
    pub fn note_progress(&self) {
        let now = Instant::now();
        lock(&self.reply.state).progress = now;
        self.reply.activity.note_progress(now);
    }
}

impl Drop for SendPermit {
    fn drop(&mut self) {
        lock(&self.replies.registered)
            .by_number
            .remove(&self.number);
    }
}
