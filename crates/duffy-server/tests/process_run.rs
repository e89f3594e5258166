//! Runs of programs that succeed, fail, end late or do not end.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]
#![expect(clippy::expect_used, reason = "helpers of tests may panic")]
#![expect(clippy::disallowed_types, reason = "tests start programs")]

mod common_process;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use common_process::{find_processes, unique_sleep, wait_for_processes, wait_until};
use duffy_server::process::{Output, ProcessError, Spec, find_program, run};
use tokio_util::sync::CancellationToken;

fn wait_for_file(path: &std::path::Path) {
    wait_until("a file", || path.exists(), |there| *there);
}

fn shell(script: &str) -> Spec {
    Spec::new("sh").args(["-c", script])
}

async fn run_shell(script: &str) -> Output {
    run(shell(script), &CancellationToken::new()).await.unwrap()
}

#[tokio::test]
async fn hands_out_status_captured_output_and_tail() {
    let spec = Spec {
        capture_stdout: 1000,
        ..shell("echo one; echo two >&2; printf 'three'; exit 7")
    };
    let output = run(spec, &CancellationToken::new()).await.unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"one\nthree");
    let mut lines: Vec<_> = output.tail.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
}

#[tokio::test]
async fn captures_nothing_unless_asked() {
    assert_eq!(run_shell("echo one").await.stdout, b"");
}

#[tokio::test]
async fn input_environment_and_directory_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec {
        stdin: Some("from us".into()),
        cwd: Some(dir.path().to_owned()),
        capture_stdout: 1000,
        ..shell("cat; echo; pwd -P; echo ${PRESENT-unset} ${HOME-unset}").env("PRESENT", "a b")
    };
    let output = run(spec, &CancellationToken::new()).await.unwrap();
    let expected = format!(
        "from us\n{}\na b {}\n",
        dir.path().canonicalize().unwrap().display(),
        std::env::var("HOME").unwrap_or_else(|_| "unset".to_owned())
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[tokio::test]
async fn without_input_standard_input_is_empty() {
    assert_eq!(run_shell("read x; echo got:$?:$x").await.tail, "got:1:");
}

#[tokio::test]
async fn input_that_nobody_reads_is_no_trouble() {
    let spec = Spec {
        stdin: Some(vec![b'x'; 1_000_000]),
        ..shell("exec 0<&-; echo done")
    };
    assert_eq!(
        run(spec, &CancellationToken::new()).await.unwrap().tail,
        "done"
    );
}

#[tokio::test]
async fn ten_megabytes_of_output_pass_and_only_the_end_stays() {
    let spec = Spec {
        capture_stdout: 10,
        tail_lines: 5,
        ..shell(
            "yes 'all work and no play' | head -c 10000000; printf '\\nlast\\n'; head -c 100000 /dev/zero; echo; printf 'caf\\351\\n'",
        )
    };
    let output = run(spec, &CancellationToken::new()).await.unwrap();
    assert_eq!(output.stdout, b"all work a");
    assert_eq!(output.tail.lines().last(), Some("caf\u{fffd}"));
    assert!(
        output.tail.lines().any(|line| line == "last"),
        "{}",
        output.tail
    );
    assert!(output.tail.len() < 200, "{}", output.tail.len());
}

#[tokio::test]
async fn missing_program_missing_directory_missing_interpreter_and_missing_permission_are_told_apart()
 {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let spec = Spec {
        remedy: "install ansible-core",
        ..Spec::new("no-such-program-here")
    };
    let error = run(spec, &stop).await.unwrap_err();
    assert!(matches!(error, ProcessError::NotFound { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "no-such-program-here: program not found; install ansible-core"
    );

    let spec = Spec {
        cwd: Some(dir.path().join("gone")),
        ..Spec::new("sh")
    };
    let error = run(spec, &stop).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot start sh: there is no directory "),
        "{error}"
    );

    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let error = run(Spec::new(&script), &stop).await.unwrap_err();
    assert!(
        matches!(error, ProcessError::NotFound { .. }),
        "not executable: {error:?}"
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = run(Spec::new(&script), &stop).await.unwrap_err();
    assert!(error.to_string().contains("interpreter"), "{error}");
}

#[test]
fn programs_are_found_as_starting_them_would() {
    assert!(find_program(OsStr::new("sh")).unwrap().is_absolute());
    assert_eq!(
        find_program(OsStr::new("/bin/sh")).unwrap().to_str(),
        Some("/bin/sh")
    );
    for missing in [
        "",
        "/",
        "/etc",
        "/etc/passwd",
        "./sh",
        "no-such-program-here",
    ] {
        assert_eq!(find_program(OsStr::new(missing)), None, "{missing}");
    }
}

#[tokio::test]
async fn deadline_ends_the_program_and_what_it_started() {
    let sleep = unique_sleep();
    let script = format!("echo begun; sleep {sleep} & sleep {sleep}");
    let spec = Spec {
        deadline: Duration::from_millis(300),
        ..shell(&script)
    };
    let error = run(spec, &CancellationToken::new()).await.unwrap_err();
    let ProcessError::Deadline {
        program,
        after,
        tail,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(
        (program.as_str(), after, tail.as_str()),
        ("sh", Duration::from_millis(300), "begun")
    );
    assert_eq!(find_processes(&sleep), Vec::<String>::new());
}

/// One process of each kind: in the group; in a session of its own with the mark; an orphan with the mark; a descendant
/// without the mark in a session of its own, as `sudo` makes it.
fn family(sleep: &str) -> String {
    format!(
        "sleep {sleep} & setsid sleep {sleep} & sh -c 'setsid sleep {sleep} & exit'; env -i setsid sh -c 'sleep {sleep} & wait' & "
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_token_ends_the_whole_family_even_if_it_ignores_term() {
    let sleep = unique_sleep();
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "trap '' TERM; {} touch begun; wait; sleep {sleep}",
        family(&sleep)
    );
    let stop = CancellationToken::new();
    let spec = Spec {
        cwd: Some(dir.path().to_owned()),
        grace: Duration::from_millis(400),
        ..shell(&script)
    };
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { run(spec, &stop).await }
    });
    wait_for_file(&dir.path().join("begun"));
    stop.cancel();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, ProcessError::Stopped), "{error:?}");
    assert_eq!(find_processes(&sleep), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_program_may_tidy_up_within_its_grace() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "trap 'sleep 0.3; touch tidied; exit 0' TERM; touch begun; while :; do sleep 0.1; done";
    let stop = CancellationToken::new();
    let spec = Spec {
        cwd: Some(dir.path().to_owned()),
        grace: Duration::from_secs(20),
        ..shell(script)
    };
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { run(spec, &stop).await }
    });
    wait_for_file(&dir.path().join("begun"));
    let start = Instant::now();
    stop.cancel();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, ProcessError::Stopped), "{error:?}");
    assert!(dir.path().join("tidied").exists());
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "the grace is not waited out: {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_stop_before_the_start_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let spec = Spec {
        cwd: Some(dir.path().to_owned()),
        ..shell("touch begun")
    };
    let error = run(spec, &stop).await.unwrap_err();
    assert!(matches!(error, ProcessError::Stopped), "{error:?}");
    assert!(!dir.path().join("begun").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_run_ends_its_family() {
    let sleep = unique_sleep();
    let dir = tempfile::tempdir().unwrap();
    let script = format!("{} touch begun; wait", family(&sleep));
    let spec = Spec {
        cwd: Some(dir.path().to_owned()),
        grace: Duration::from_secs(1),
        ..shell(&script)
    };
    let running = tokio::spawn(async move { run(spec, &CancellationToken::new()).await });
    wait_for_file(&dir.path().join("begun"));
    running.abort();
    wait_for_processes(&sleep, 0);
}

#[tokio::test]
async fn a_program_that_is_killed_takes_its_marked_orphans_along() {
    let sleep = unique_sleep();
    // Orphans without the mark cannot be distinguished from other processes.
    let script = format!("setsid sleep {sleep} & sleep {sleep} & kill -9 $$");
    let output = run_shell(&script).await;
    assert_eq!(output.status.signal(), Some(9));
    assert_eq!(find_processes(&sleep), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_leaves_running_on_purpose_stays_and_holds_nobody_up() {
    let sleep = unique_sleep();
    let start = Instant::now();
    // It inherits the output, as ssh's control masters do.
    let output = run_shell(&format!("setsid sleep {sleep} & echo pid $!; exit 3")).await;
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(output.status.code(), Some(3));
    wait_for_processes(&sleep, 1);
    let pid = output.tail.strip_prefix("pid ").unwrap();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", pid])
            .status()
            .unwrap()
            .success()
    );
    wait_for_processes(&sleep, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_side_by_side_do_not_end_each_other() {
    let (first, second) = (unique_sleep(), unique_sleep());
    let stop = CancellationToken::new();
    let start = |sleep: &str| {
        let (spec, stop) = (
            shell(&format!("{} wait", family(sleep))),
            stop.child_token(),
        );
        (
            tokio::spawn({
                let stop = stop.clone();
                async move { run(spec, &stop).await }
            }),
            stop,
        )
    };
    let (one, stop_one) = start(&first);
    let (two, stop_two) = start(&second);
    // Of each: four sleeps, and three shells that have the number in their script.
    let count = |sleep: &str| {
        find_processes(sleep)
            .iter()
            .filter(|line| line.contains(": sleep "))
            .count()
    };
    wait_until(
        "both",
        || (count(&first), count(&second)),
        |counts| *counts == (4, 4),
    );
    stop_one.cancel();
    one.await.unwrap().unwrap_err();
    assert_eq!((count(&first), count(&second)), (0, 4));
    stop_two.cancel();
    two.await.unwrap().unwrap_err();
    assert_eq!(count(&second), 0);
}
