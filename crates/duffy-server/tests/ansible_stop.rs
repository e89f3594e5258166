//! No playbook outlives a stop or its worker, nor do ansible's workers, which leave the process group.
#![expect(clippy::expect_used, reason = "helpers of tests may panic")]
#![expect(clippy::disallowed_types, reason = "tests start programs")]

mod common_ansible;
mod common_process;

use std::path::Path;
use std::process::{Command, Stdio};

use common_ansible::{Site, ansible_playbook, mechanism, nodes, play, settings_for};
use common_process::{find_processes, unique_sleep, wait_for_processes, wait_until};
use duffy_server::nodes::ansible::sweep_workdirs;
use duffy_server::nodes::mechanism::MechanismError;
use tokio_util::sync::CancellationToken;

/// Set in the process that plays the worker: the site, and the playbook in it.
const ROLE: &str = "DUFFY_TEST_WORKER_SITE";

/// A site whose only playbook hangs in two tasks at once, and the text that all its processes have in their arguments.
fn hanging_site() -> (Site, String) {
    let sleep = unique_sleep();
    let site = Site::empty();
    let python = "ansible_python_interpreter='{{ ansible_playbook_python }}'";
    site.write("hosts", &format!("a {python}\nb {python}\n"));
    site.configure("inventory = hosts");
    let tasks = format!(
        "    - shell: 'trap \"\" TERM; sleep {sleep} & setsid sleep {sleep} & wait; sleep {sleep}'"
    );
    site.write(
        &format!("{sleep}.yml"),
        &play(&tasks).replace("hosts: localhost", "hosts: all"),
    );
    (site, sleep)
}

fn count_sleeps(sleep: &str) -> usize {
    find_processes(sleep)
        .iter()
        .filter(|line| line.contains(": sleep "))
        .count()
}

/// Waits until the playbook hangs, or `ended` says that it ended.
fn wait_for_sleeps(sleep: &str, ended: impl Fn() -> bool) {
    wait_until(
        "two sleeps on each of two hosts, or the end of the playbook",
        || (count_sleeps(sleep), ended()),
        |(count, ended)| *count == 4 || *ended,
    );
    assert!(!ended(), "the playbook ended early");
    let all = find_processes(sleep);
    let ansible = all
        .iter()
        .filter(|line| line.contains("ansible-playbook"))
        .count();
    assert!(
        ansible >= 3,
        "the program and its workers can be seen: {all:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_playbook_and_all_that_it_started() {
    let (site, sleep) = hanging_site();
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (mechanism, stop) = (
            mechanism(settings_for(site.topdir(), &format!("{sleep}.yml"))),
            stop.clone(),
        );
        async move { mechanism.provision(&nodes(1), &stop).await }
    });
    wait_for_sleeps(&sleep, || running.is_finished());
    stop.cancel();
    let error = running.await.expect("no panic").expect_err("stopped");
    assert!(matches!(error, MechanismError::Stopped), "{error:?}");
    assert_eq!(find_processes(&sleep), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_work_ends_the_playbook_and_all_that_it_started() {
    let (site, sleep) = hanging_site();
    let mechanism = mechanism(settings_for(site.topdir(), &format!("{sleep}.yml")));
    let running = tokio::spawn(async move {
        mechanism
            .provision(&nodes(1), &CancellationToken::new())
            .await
    });
    wait_for_sleeps(&sleep, || running.is_finished());
    running.abort();
    wait_for_processes(&sleep, 0);
}

/// The test starts itself again as the worker, and kills the worker.
#[test]
fn killing_the_worker_ends_the_playbook_and_all_that_it_started() {
    if let Some(site) = std::env::var_os(ROLE) {
        work(Path::new(&site));
        return;
    }
    let (site, sleep) = hanging_site();
    // If it is missing, the test fails here and not in the worker.
    ansible_playbook();
    let mut worker = Command::new(std::env::current_exe().expect("path of this test"))
        .args([
            "--exact",
            "killing_the_worker_ends_the_playbook_and_all_that_it_started",
            "--nocapture",
        ])
        .env(ROLE, site.topdir().join(format!("{sleep}.yml")))
        .env("TMPDIR", site.topdir())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start this test again");
    wait_for_sleeps(&sleep, || false);
    assert_eq!(sweep_workdirs(site.topdir()), 0, "it is in use");
    worker.kill().expect("kill the worker");
    worker.wait().expect("wait for the worker");
    assert_eq!(count_workdirs(&site), 1);
    // The playbook may run for some more seconds, but does not hold the directory.
    assert_eq!(sweep_workdirs(site.topdir()), 1);
    assert_eq!(count_workdirs(&site), 0);
    wait_for_processes(&sleep, 0);
}

fn count_workdirs(site: &Site) -> usize {
    let entries = std::fs::read_dir(site.topdir()).expect("the directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .filter(|name| name.as_encoded_bytes().starts_with(b"duffy-ansible-"))
        .count()
}

fn work(playbook: &Path) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let topdir = playbook.parent().expect("a directory");
    let name = playbook
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let mechanism = mechanism(settings_for(topdir, name));
    let _never = runtime.block_on(mechanism.provision(&nodes(1), &CancellationToken::new()));
}
