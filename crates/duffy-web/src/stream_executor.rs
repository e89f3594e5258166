//! Spawns the tasks of HTTP/2 streams. Each task can be cancelled from outside, which resets its stream.

use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static RESET: CancellationToken;
}

/// Spawns a task for each stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamExecutor;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let reset = CancellationToken::new();
        let stream = reset.clone().run_until_cancelled_owned(stream);
        tokio::spawn(RESET.scope(reset, stream));
    }
}

/// Resets the stream of the current task when it is cancelled. HTTP/1 has no streams.
pub fn current_reset() -> Option<CancellationToken> {
    RESET.try_with(Clone::clone).ok()
}
