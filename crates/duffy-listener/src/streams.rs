//! The tasks of HTTP/2's streams. Each can be ended from outside, which resets its stream.

use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static RESET: CancellationToken;
}

/// Starts these tasks.
#[derive(Debug, Clone, Copy)]
pub struct Streams;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let reset = CancellationToken::new();
        let stream = reset.clone().run_until_cancelled_owned(stream);
        tokio::spawn(RESET.scope(reset, stream));
    }
}

/// What resets the stream whose task this is; in HTTP/1 there is none.
pub fn current() -> Option<CancellationToken> {
    RESET.try_with(Clone::clone).ok()
}
