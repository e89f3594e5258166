//! Large replies that several requests share.
//!
//! Making a list takes several times its memory. So only some lists are made at a time, and concurrent requests for the same list
//! share one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::mutex::lock;
use crate::shared_bytes::SharedBytes;

/// Makes lists. Concurrent requests with the same key share a list.
#[derive(Debug)]
pub struct Lists<K> {
    making: Arc<Semaphore>,
    queue: Duration,
    /// What requests wait for. Entries without requests are dead.
    waiting: Mutex<HashMap<K, Weak<LastList>>>,
}

/// The last list that was made for one of the requests that wait. The lock is held while the next one is made.
type LastList = tokio::sync::Mutex<Option<Made>>;

#[derive(Debug)]
struct Made {
    begun: Instant,
    /// `None` if it failed.
    list: Option<SharedBytes>,
}

/// Why there is no list.
#[derive(Debug)]
pub enum ListError<E> {
    /// Too many lists are being made.
    Busy,
    /// The list could not be made.
    Failed(E),
    /// The list could not be made for another request, which got the cause.
    FailedForAnother,
}

impl<K: Eq + Hash> Lists<K> {
    /// Makes at most `at_once` lists concurrently. Large lists count until there is memory to send them. A request waits for at
    /// most `queue`.
    pub fn new(at_once: usize, queue: Duration) -> Self {
        Self {
            making: Arc::new(Semaphore::new(at_once)),
            queue,
            waiting: Mutex::default(),
        }
    }

    fn last_list(&self, key: K) -> Arc<LastList> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|_, last| last.strong_count() > 0);
        waiting
            .get(&key)
            .and_then(Weak::upgrade)
            .unwrap_or_else(|| {
                let last = Arc::default();
                waiting.insert(key, Arc::downgrade(&last));
                last
            })
    }

    /// Returns a list that is made for this request, or for another one after this one began.
    ///
    /// # Errors
    /// The request waits for too long, or the list cannot be made.
    pub async fn share<E>(
        &self,
        key: K,
        make: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<SharedBytes, ListError<E>> {
        let requested = Instant::now();
        let deadline = requested + self.queue;
        let last = self.last_list(key);
        let mut last = timeout_at(deadline, last.lock())
            .await
            .map_err(|_| ListError::Busy)?;
        if let Some(made) = last.as_ref().filter(|made| made.begun > requested) {
            return made.list.clone().ok_or(ListError::FailedForAnother);
        }
        // The old list may hold a permit.
        *last = None;
        let permit = self.acquire(deadline).await?;
        let begun = Instant::now();
        let result = make.await.map(|bytes| SharedBytes::new(bytes, permit));
        *last = Some(Made {
            begun,
            list: result.as_ref().ok().cloned(),
        });
        result.map_err(ListError::Failed)
    }

    /// Returns a list for this request alone.
    ///
    /// # Errors
    /// The request waits for too long, or the list cannot be made.
    pub async fn make<E>(
        &self,
        make: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<SharedBytes, ListError<E>> {
        let permit = self.acquire(Instant::now() + self.queue).await?;
        let bytes = make.await.map_err(ListError::Failed)?;
        Ok(SharedBytes::new(bytes, permit))
    }

    async fn acquire<E>(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, ListError<E>> {
        let permit = timeout_at(deadline, Arc::clone(&self.making).acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(ListError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    const AT_ONCE: usize = 2;
    const QUEUE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn requests_that_wait_share_the_next_list() {
        let lists = Lists::new(AT_ONCE, QUEUE);
        let (count, go_on) = (AtomicUsize::new(0), Notify::new());
        let make = || async {
            let number = count.fetch_add(1, Ordering::SeqCst);
            go_on.notified().await;
            Ok::<_, Infallible>(Bytes::from(number.to_string()))
        };
        let mut first = Box::pin(lists.share("list", make()));
        assert!(futures::poll!(&mut first).is_pending());
        // These begin while a list is being made that may lack what they look for.
        let mut others: Vec<_> = (0..5)
            .map(|_| Box::pin(lists.share("list", make())))
            .collect();
        for other in &mut others {
            assert!(futures::poll!(other).is_pending());
        }
        // Others do not wait for them.
        let mut another = Box::pin(lists.share("another", make()));
        assert!(futures::poll!(&mut another).is_pending());
        assert_eq!(count.load(Ordering::SeqCst), 2);
        go_on.notify_waiters();
        assert_eq!(first.await.unwrap().bytes(), "0");
        assert_eq!(another.await.unwrap().bytes(), "1");
        go_on.notify_one();
        for other in join_all(others).await {
            assert_eq!(other.unwrap().bytes(), "2");
        }
        assert_eq!(lists.making.available_permits(), AT_ONCE);
        let is_dead = |last: &Weak<LastList>| last.strong_count() == 0;
        assert!(lock(&lists.waiting).values().all(is_dead));
        // A request removes what the ones before it left.
        lists.share("list", async { Err(()) }).await.unwrap_err();
        assert_eq!(lock(&lists.waiting).len(), 1);
    }

    /// There are as many keys as permits, and requests wait for each key. A list that is replaced must release its permit.
    #[tokio::test]
    async fn lists_that_are_replaced_hold_no_permits() {
        for size in [1, 100_000] {
            let lists = Lists::new(AT_ONCE, QUEUE);
            let go_on = Notify::new();
            let make = || async {
                go_on.notified().await;
                Ok::<_, Infallible>(Bytes::from(vec![0; size]))
            };
            let keys = || 0..AT_ONCE;
            let mut first: Vec<_> = keys()
                .map(|key| Box::pin(lists.share(key, make())))
                .collect();
            for one in &mut first {
                assert!(futures::poll!(one).is_pending());
            }
            let mut next: Vec<_> = keys()
                .map(|key| Box::pin(lists.share(key, make())))
                .collect();
            for one in &mut next {
                assert!(futures::poll!(one).is_pending());
            }
            go_on.notify_waiters();
            for made in join_all(first).await {
                drop(made.unwrap());
            }
            for one in &mut next {
                assert!(futures::poll!(one).is_pending());
            }
            go_on.notify_waiters();
            for one in &mut next {
                assert!(futures::poll!(one).is_ready(), "{size}");
            }
        }
    }

    #[tokio::test]
    async fn only_the_request_that_made_the_list_gets_the_cause() {
        let lists = Lists::new(AT_ONCE, QUEUE);
        let go_on = Notify::new();
        let fail = || async {
            go_on.notified().await;
            Err("broken")
        };
        let mut first = Box::pin(lists.share("list", fail()));
        assert!(futures::poll!(&mut first).is_pending());
        let mut others: Vec<_> = (0..2)
            .map(|_| Box::pin(lists.share("list", fail())))
            .collect();
        for other in &mut others {
            assert!(futures::poll!(other).is_pending());
        }
        go_on.notify_one();
        assert!(matches!(first.await, Err(ListError::Failed("broken"))));
        go_on.notify_one();
        let results = join_all(others).await;
        assert!(matches!(results[0], Err(ListError::Failed("broken"))));
        assert!(matches!(results[1], Err(ListError::FailedForAnother)));
    }

    #[tokio::test]
    async fn the_number_of_lists_that_are_made_at_once_is_limited() {
        let lists = Lists::<()>::new(AT_ONCE, QUEUE);
        let go_on = Notify::new();
        let make = || async {
            go_on.notified().await;
            Ok::<_, Infallible>(Bytes::new())
        };
        let mut all: Vec<_> = (0..=AT_ONCE)
            .map(|_| Box::pin(lists.make(make())))
            .collect();
        for one in &mut all {
            assert!(futures::poll!(one).is_pending());
        }
        go_on.notify_waiters();
        let last = all.pop().unwrap();
        let done = join_all(all).await;
        // Lists that are made and not counted yet hold their permits.
        let mut last = last;
        assert!(futures::poll!(&mut last).is_pending());
        drop(done);
        assert!(futures::poll!(&mut last).is_pending());
        go_on.notify_one();
        assert!(last.await.is_ok());
    }
}
