//! Who does what is written to the history: a request, a worker, an operator.
//!
//! It goes with the task, as the spans of the log do: what is done for somebody is several calls
//! deep, and none of them should have to hand the name on.

use std::sync::Arc;

tokio::task_local! {
    static ACTOR: Arc<str>;
}

/// Does `work` in this name.
pub async fn acting<F: Future>(actor: Arc<str>, work: F) -> F::Output {
    ACTOR.scope(actor, work).await
}

/// In whose name the running task acts.
pub fn current() -> Arc<str> {
    ACTOR
        .try_with(Arc::clone)
        .unwrap_or_else(|_| Arc::from("duffy"))
}

/// `work`, to be spawned as a task, in the name of the running one.
pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    acting(current(), work)
}

/// The name of a worker: the host's, and the number of the process there.
pub fn worker() -> Arc<str> {
    format!("worker {} {}", host(), std::process::id()).into()
}

/// The name of somebody who acts on the database by hand: theirs, and the host's.
pub fn operator(user: &str) -> Arc<str> {
    format!("operator {user}@{}", host()).into()
}

fn host() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "localhost".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
