//! The replies that clients have not read yet: how much memory they hold, and which of them are cut off.
//!
//! A client that does not read its reply makes the server keep it. So all unsent replies share a budget of bytes. When
//! it is used up, the replies that made no progress for the longest time are cut off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, Running};
use crate::content::{Content, Fixed};
use crate::reply::ReplyBody;
use crate::streams;

/// Most bytes of small replies, with what each of them needs besides.
const SMALL_ROOM: usize = 8 * 1024 * 1024;

/// Most bytes of large replies. One that is even larger is sent alone.
const LARGE_ROOM: usize = 16 * 1024 * 1024;

/// Largest reply that counts as small.
pub const SMALL: usize = 16 * 1024;

/// What a reply costs besides its bytes: its task, its head, the state of its stream.
const OVERHEAD: usize = 4 * 1024;

/// How long a reply may pause before it gives way to others.
const GRACE: Duration = Duration::from_secs(1);

/// How long a reply waits for others that do make progress. Then the slowest of these give way, too.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two looks for replies to cut off, and the time that a reset has to take effect.
const LOOK: Duration = Duration::from_millis(100);

/// All replies of a server that are not sent yet.
#[derive(Debug)]
pub struct Outgoing {
    small: Room,
    large: Room,
    replies: Mutex<Replies>,
}

/// A budget of bytes.
#[derive(Debug)]
pub struct Room {
    size: usize,
    free: Arc<Semaphore>,
    /// When room was last made.
    made: Mutex<Option<Instant>>,
    /// How many of these bytes a reply holds.
    held: fn(&Sending) -> usize,
}

#[derive(Debug, Default)]
struct Replies {
    next: u64,
    by_number: HashMap<u64, Arc<Sending>>,
}

/// A reply that is being sent.
#[derive(Debug)]
pub struct Sending {
    activity: Arc<Activity>,
    /// Resets the stream, in HTTP/2.
    reset: Option<CancellationToken>,
    /// How many bytes of the small replies' room it holds.
    cost: usize,
    content: Option<Content>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    progress: Instant,
    cut: Option<Instant>,
}

/// A reply's place among the others. It is free again when its body and all pieces of it are dropped.
#[derive(Debug)]
pub struct Unsent {
    outgoing: Arc<Outgoing>,
    number: u64,
    sending: Arc<Sending>,
    _room: Option<OwnedSemaphorePermit>,
    _running: Running,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outgoing {
    /// Nothing to send yet.
    pub fn new() -> Self {
        Self {
            small: Room::new(SMALL_ROOM, |sending| sending.cost),
            large: Room::new(LARGE_ROOM, |sending| {
                sending.content.as_ref().map_or(0, Content::share)
            }),
            replies: Mutex::default(),
        }
    }

    /// Waits until there is room for a reply, and counts it until it is sent or dropped.
    pub async fn admit<B: Body<Data = Bytes>>(
        this: &Arc<Self>,
        reply: Response<B>,
        mut running: Running,
    ) -> Response<ReplyBody<B>> {
        let (mut head, body) = reply.into_parts();
        let is_fixed = head.extensions.remove::<Fixed>().is_some();
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let (cost, content) = match head.extensions.remove::<Content>() {
            Some(content) if content.size() > SMALL => (OVERHEAD, Some(content)),
            _ if is_fixed => (OVERHEAD, None),
            _ if length > SMALL => (OVERHEAD, Some(Content::of_size(length))),
            _ => (OVERHEAD + length, None),
        };
        if let Some(content) = &content {
            let room = this.large.take(this, content.size());
            content.keep_room(room).await;
        }
        let room = this.small.take(this, cost).await;
        running.hand_over();
        let sending = Arc::new(Sending {
            activity: Arc::clone(running.activity()),
            reset: streams::current(),
            cost,
            content,
            state: Mutex::new(State {
                progress: Instant::now(),
                cut: None,
            }),
        });
        let unsent = Unsent {
            outgoing: Arc::clone(this),
            number: lock(&this.replies).add(&sending),
            sending,
            _room: room,
            _running: running,
        };
        Response::from_parts(head, ReplyBody::new(body, unsent))
    }

    /// Cuts off each reply that makes no progress for so long. Never ends.
    pub async fn cut_off_stalled(&self, longest: Duration) {
        loop {
            tokio::time::sleep(longest / 4).await;
            for (_, reply) in self.stalled(longest) {
                tracing::debug!("a reply that its client does not read is cut off");
                reply.cut_off();
            }
        }
    }

    /// The replies that made no progress for so long, the longest first.
    fn stalled(&self, pause: Duration) -> Vec<(Instant, Arc<Sending>)> {
        let now = Instant::now();
        let replies = lock(&self.replies);
        let mut stalled: Vec<_> = replies
            .by_number
            .values()
            .map(|reply| (lock(&reply.state).progress, reply))
            .filter(|(progress, _)| *progress + pause <= now)
            .map(|(progress, reply)| (progress, Arc::clone(reply)))
            .collect();
        drop(replies);
        stalled.sort_by_key(|(progress, _)| *progress);
        stalled
    }
}

impl Replies {
    fn add(&mut self, sending: &Arc<Sending>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, Arc::clone(sending));
        number
    }
}

impl Room {
    fn new(size: usize, held: fn(&Sending) -> usize) -> Self {
        Self {
            size,
            free: Arc::new(Semaphore::new(size)),
            made: Mutex::default(),
            held,
        }
    }

    /// Takes so many bytes, in turn. While there are not enough, replies that pause give way.
    async fn take(&self, outgoing: &Outgoing, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = bytes.min(self.size) as u32;
        let begun = Instant::now();
        let taken = Arc::clone(&self.free).acquire_many_owned(bytes);
        let mut taken = std::pin::pin!(taken);
        let mut look = Duration::ZERO;
        loop {
            if let Ok(taken) = tokio::time::timeout(look, taken.as_mut()).await {
                return taken.ok();
            }
            let pause = if begun.elapsed() < PATIENCE {
                GRACE
            } else {
                Duration::ZERO
            };
            self.make(outgoing, bytes as usize, pause);
            look = LOOK;
        }
    }

    /// Cuts off replies that made no progress for so long, until enough is free, or a quarter of all.
    fn make(&self, outgoing: &Outgoing, bytes: usize, pause: Duration) {
        let now = Instant::now();
        let last = lock(&self.made).replace(now);
        if let Some(last) = last.filter(|last| *last + LOOK > now) {
            *lock(&self.made) = Some(last);
            return;
        }
        let wanted = bytes.max(self.size / 4);
        let mut freed = 0;
        for (_, reply) in outgoing.stalled(pause) {
            if freed >= wanted {
                return;
            }
            let held = (self.held)(&reply);
            if held > 0 {
                tracing::debug!("a reply that its client does not read makes room for others");
                reply.cut_off();
                freed += held;
            }
        }
    }
}

impl Sending {
    fn note_progress(&self) {
        let now = Instant::now();
        lock(&self.state).progress = now;
        self.activity.note_progress(now);
    }

    /// Resets its stream. Where there is none, or that did not help, closes the connection: what HTTP/2 has already
    /// taken over waits for the connection when its client reads nothing at all.
    fn cut_off(&self) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        match (state.cut, &self.reset) {
            (Some(cut), _) if cut + LOOK > now => return,
            (None, Some(reset)) => reset.cancel(),
            _ => self.activity.cut_off(),
        }
        state.cut = Some(now);
    }
}

impl Unsent {
    /// A piece of the reply is on its way.
    pub fn note_progress(&self) {
        self.sending.note_progress();
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        lock(&self.outgoing.replies).by_number.remove(&self.number);
    }
}
