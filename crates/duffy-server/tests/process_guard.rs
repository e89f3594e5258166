//! No program outlives the process that ran it, not even one that is ended by SIGKILL.
#![expect(clippy::expect_used, reason = "helpers of tests may panic")]
#![expect(clippy::disallowed_types, reason = "tests start programs")]

mod common_process;

use std::process::{Command, Stdio};
use std::time::Duration;

use common_process::{unique_sleep, wait_for_processes};
use duffy_server::process::{Spec, run};
use tokio_util::sync::CancellationToken;

/// Set in the process that plays the worker: the script that it runs.
const ROLE: &str = "DUFFY_TEST_WORKER_RUNS";

/// The test starts itself again as the worker, and kills the worker.
#[test]
fn killing_the_worker_ends_what_it_runs() {
    if let Some(script) = std::env::var_os(ROLE) {
        work(script);
        return;
    }
    let sleep = unique_sleep();
    let script = format!(
        "trap '' TERM; sleep {sleep} & setsid sleep {sleep} & sh -c 'setsid sleep {sleep} & exit'; wait; sleep {sleep}"
    );
    let mut worker = Command::new(std::env::current_exe().expect("path of this test"))
        .args([
            "--exact",
            "killing_the_worker_ends_what_it_runs",
            "--nocapture",
        ])
        .env(ROLE, script)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start this test again");
    // Three sleeps, and the shell that waits for them. The worker's guard does not have the number.
    wait_for_processes(&sleep, 4);
    worker.kill().expect("kill the worker");
    worker.wait().expect("wait for the worker");
    wait_for_processes(&sleep, 0);
}

fn work(script: std::ffi::OsString) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let spec = Spec {
        deadline: Duration::from_hours(1),
        grace: Duration::from_secs(1),
        ..Spec::new("sh").args(["-c".into(), script])
    };
    let _never = runtime.block_on(run(spec, &CancellationToken::new()));
}
