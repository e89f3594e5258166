//! Who does what the history records: a request, a worker or an operator.
//!
//! The name belongs to the task, like the spans of the log, so that no function has to pass it on.

use std::sync::Arc;

tokio::task_local! {
    static ACTOR: Arc<str>;
}

/// Runs `work` in this name.
pub async fn acting<F: Future>(actor: Arc<str>, work: F) -> F::Output {
    ACTOR.scope(actor, work).await
}

/// The name in which the running task acts.
pub fn current() -> Arc<str> {
    ACTOR
        .try_with(Arc::clone)
        .unwrap_or_else(|_| Arc::from("duffy"))
}

/// Returns `work` in the name of the running task, to spawn it as another task.
pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    acting(current(), work)
}

/// The name of this process as a worker: with the host's name and the process's id.
pub fn worker() -> Arc<str> {
    format!("worker {} {}", host(), std::process::id()).into()
}

/// The name of this process as a server of the web API, when it acts without a request.
pub fn server() -> Arc<str> {
    format!("server {} {}", host(), std::process::id()).into()
}

/// The name of an operator who acts on the database: with the user's and the host's name.
pub fn operator(user: &str) -> Arc<str> {
    format!("operator {user}@{}", host()).into()
}

fn host() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "localhost".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
