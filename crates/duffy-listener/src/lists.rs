//! Large replies that are made for several requests at once.
//!
//! To make a list takes several times its memory. So few are made at a time, and requests for the same list share one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::content::Content;

/// Lists by their keys. Requests with the same key get the same list.
#[derive(Debug)]
pub struct Lists<K> {
    making: Arc<Semaphore>,
    queue: Duration,
    /// Orders requests and lists in time.
    clock: AtomicU64,
    flights: Mutex<HashMap<K, Flight>>,
}

/// Requests that wait for the same list, and the list that was made last for one of them.
#[derive(Debug, Default)]
struct Flight {
    waiting: usize,
    last: Arc<tokio::sync::Mutex<Option<Made>>>,
}

#[derive(Debug)]
struct Made {
    begun: u64,
    /// None when it failed.
    content: Option<Content>,
}

/// Why there is no list.
#[derive(Debug)]
pub enum ListError<E> {
    /// Others wait for too long already.
    Busy,
    /// It could not be made.
    Failed(E),
    /// It could not be made for another request, to which the cause was told.
    FailedForAnother,
}

impl<K: Eq + Hash + Clone> Lists<K> {
    /// At most so many are made at once, those counted that wait for room to be sent. A request waits for at most `queue`
    /// until its list is made.
    pub fn new(at_once: usize, queue: Duration) -> Self {
        Self {
            making: Arc::new(Semaphore::new(at_once)),
            queue,
            clock: AtomicU64::new(0),
            flights: Mutex::default(),
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<K, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, key: K) -> Wait<'_, K> {
        let mut flights = self.flights();
        let flight = flights.entry(key.clone()).or_default();
        flight.waiting += 1;
        Wait {
            last: Arc::clone(&flight.last),
            lists: self,
            key,
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// A list that is made for this request, or after it came for another one.
    ///
    /// # Errors
    /// It waits for too long, or the list cannot be made.
    pub async fn share<E>(
        &self,
        key: K,
        make: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Content, ListError<E>> {
        let came = self.tick();
        let deadline = Instant::now() + self.queue;
        let wait = self.join(key);
        let mut last = timeout_at(deadline, wait.last.lock())
            .await
            .map_err(|_| ListError::Busy)?;
        if let Some(made) = last.as_ref().filter(|made| made.begun > came) {
            return made.content.clone().ok_or(ListError::FailedForAnother);
        }
        // The old list may hold a place among those that are made.
        *last = None;
        let place = self.place(deadline).await?;
        let begun = self.tick();
        let result = make.await.map(|bytes| Content::new(bytes, place));
        let content = result.as_ref().ok().cloned();
        *last = Some(Made { begun, content });
        result.map_err(ListError::Failed)
    }

    /// A list for this request alone.
    ///
    /// # Errors
    /// It waits for too long, or the list cannot be made.
    pub async fn make<E>(
        &self,
        make: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Content, ListError<E>> {
        let place = self.place(Instant::now() + self.queue).await?;
        let bytes = make.await.map_err(ListError::Failed)?;
        Ok(Content::new(bytes, place))
    }

    async fn place<E>(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, ListError<E>> {
        let place = timeout_at(deadline, Arc::clone(&self.making).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or(ListError::Busy)
    }
}

/// A request that waits for a list. The last one that goes takes the list away.
struct Wait<'l, K: Eq + Hash> {
    last: Arc<tokio::sync::Mutex<Option<Made>>>,
    lists: &'l Lists<K>,
    key: K,
}

impl<K: Eq + Hash> Drop for Wait<'_, K> {
    fn drop(&mut self) {
        let flights = &self.lists.flights;
        let mut flights = flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get_mut(&self.key) {
            flight.waiting -= 1;
            if flight.waiting == 0 {
                flights.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::AtomicUsize;

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
        // These come while a list is made that may not have what they look for.
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
        assert!(lists.flights().is_empty());
    }

    /// As many keys as lists can be made at once, and somebody waits for each: a list that was made must give its place up.
    #[tokio::test]
    async fn lists_that_were_made_keep_no_places() {
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
    async fn only_the_one_that_asked_is_told_why_it_failed() {
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
        let told = join_all(others).await;
        assert!(matches!(told[0], Err(ListError::Failed("broken"))));
        assert!(matches!(told[1], Err(ListError::FailedForAnother)));
    }

    #[tokio::test]
    async fn few_lists_are_made_at_once() {
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
        // What is made and has no room yet counts.
        let mut last = last;
        assert!(futures::poll!(&mut last).is_pending());
        drop(done);
        assert!(futures::poll!(&mut last).is_pending());
        go_on.notify_one();
        assert!(last.await.is_ok());
    }
}
