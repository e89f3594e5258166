//! Playbooks of many kinds, run by the real `ansible-playbook` that `DUFFY_TEST_ANSIBLE` names.
#![expect(clippy::expect_used, reason = "helpers of tests may panic")]

mod common_ansible;
#[path = "ansible_playbooks/trust.rs"]
mod trust;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common_ansible::{Site, ansible_playbook, mechanism, nodes, play, settings_for};
use duffy_config::Ansible;
use duffy_server::nodes::mechanism::{MechanismError, match_deprovisioned, match_provisioned};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

async fn provision(settings: Ansible, count: i64) -> Result<Vec<Value>, MechanismError> {
    mechanism(settings)
        .provision(&nodes(count), &CancellationToken::new())
        .await
}

async fn provision_one(tasks: &str) -> Result<Vec<Value>, MechanismError> {
    provision_at(&site_with(tasks), 1).await
}

async fn provision_at(site: &Site, count: i64) -> Result<Vec<Value>, MechanismError> {
    provision(settings(site), count).await
}

/// A site with the tasks of a play on localhost as `play.yml`.
fn site_with(tasks: &str) -> Site {
    let site = Site::empty();
    site.write("play.yml", &play(tasks));
    site
}

/// Settings that use `play.yml` for both purposes.
fn settings(site: &Site) -> Ansible {
    settings_for(site.topdir(), "play.yml")
}

/// Runs the tasks, which must fail, and returns kind, message and log of the error.
async fn fail_one(tasks: &str) -> (&'static str, String, String) {
    let site = site_with(tasks);
    let error = provision_at(&site, 1)
        .await
        .expect_err("the playbook fails");
    let kind = match &error {
        MechanismError::Failed { .. } => "failed",
        MechanismError::Deadline { .. } => "deadline",
        MechanismError::Stopped => "stopped",
        MechanismError::BadResult { .. } => "bad result",
        MechanismError::Setup { .. } => "setup",
    };
    assert!(!error.to_string().contains('\n'), "{error}");
    (kind, error.to_string(), error.log().to_owned())
}

#[tokio::test]
async fn results_come_back_in_order() {
    let tasks = r#"
    - set_fact: {duffy_out: "too early"}
    - set_fact:
        duffy_out:
          nodes: "{{ nodes }}"
          greeting: "{{ greeting }}"
      vars:
        nodes: "{{ duffy_in.nodes | map('combine', {'greeting': greeting, 'rendered': template}) | list }}"
    - set_fact: {other: 1}
    - debug: {msg: the end}"#;
    let results = provision_at(&site_with(tasks), 3).await.unwrap();
    let expected: Vec<_> = (1..=3)
        .map(|id| {
            let mut node = json!({"id": id, "hostname": null, "ipaddr": format!("10.0.0.{id}")});
            node["greeting"] = json!("hällo \"wörld\" 'x' \\ \u{2028}");
            node["rendered"] = results[0]["rendered"].clone();
            node
        })
        .collect();
    assert_eq!(results, expected);
    assert_eq!(
        results[0]["rendered"].to_string().trim_matches('"'),
        "21",
        "templates in variables are rendered"
    );
    assert!(
        match_provisioned(&nodes(3), &results)
            .iter()
            .all(Result::is_ok)
    );
}

#[tokio::test]
async fn all_names_of_set_fact_count_and_so_do_loops() {
    for (tasks, last) in [
        (
            "\n    - ansible.builtin.set_fact: {duffy_out: {nodes: [full]}}",
            "full",
        ),
        (
            "\n    - ansible.legacy.set_fact: {duffy_out: {nodes: [legacy]}}",
            "legacy",
        ),
        (
            "\n    - action: set_fact duffy_out={{ {'nodes':['action']} }}",
            "action",
        ),
        (
            "\n    - set_fact: {duffy_out: {nodes: [early]}}\n    - set_fact: {duffy_out: {nodes: [\"{{ item }}\"]}}\n      loop: [a, b]",
            "b",
        ),
        (
            "\n    - set_fact: {duffy_out: {nodes: [\"{{ item }}\"]}}\n      loop: [a, b]\n      when: item == 'a'",
            "a",
        ),
        (
            "\n    - set_fact: {duffy_out: {nodes: [kept]}}\n    - set_fact: {duffy_out: {nodes: [not]}}\n      when: false",
            "kept",
        ),
    ] {
        assert_eq!(
            provision_one(tasks).await.unwrap(),
            [json!(last)],
            "{tasks}"
        );
    }
}

#[tokio::test]
async fn odd_values_survive() {
    let tasks = r#"
    - command: printf 'caf\351'
      register: odd
    - set_fact:
        duffy_out:
          nodes:
            - unsafe: !unsafe "{{ not.rendered }}"
              date: 2020-01-31
              number: 1.5
              nothing: null
              bytes: "{{ odd.stdout }}"
            - null
            - text"#;
    let site = site_with(tasks);
    site.configure("module_strict_utf8_response = False");
    let results = provision_at(&site, 1).await.unwrap();
    assert_eq!(results.len(), 3);
    assert_eq!(results[0]["unsafe"], "{{ not.rendered }}");
    assert!(
        results[0]["date"]
            .as_str()
            .unwrap()
            .starts_with("2020-01-31")
    );
    assert_eq!(
        (&results[0]["number"], &results[0]["nothing"]),
        (&json!(1.5), &json!(null))
    );
    assert!(
        results[0]["bytes"].as_str().unwrap().starts_with("caf"),
        "{results:?}"
    );
    assert_eq!(results[1..], [json!(null), json!("text")]);
    assert!(
        match_provisioned(&nodes(3), &results)
            .iter()
            .all(Result::is_err)
    );
}

#[tokio::test]
async fn half_a_result_serves_the_nodes_that_it_has() {
    let tasks = "\n    - set_fact: {duffy_out: {nodes: \"{{ duffy_in.nodes[:2] }}\"}}";
    let results = provision_at(&site_with(tasks), 3).await.unwrap();
    let ok: Vec<_> = match_provisioned(&nodes(3), &results)
        .iter()
        .map(Result::is_ok)
        .collect();
    assert_eq!(ok, [true, true, false]);
}

#[tokio::test]
async fn a_failed_playbook_has_no_result_and_says_which_task_and_why() {
    let (kind, message, log) = fail_one(
        r"
    - set_fact: {duffy_out: {nodes: [{ipaddr: 10.0.0.1}]}}
    - name: Rescued
      block: [{fail: {msg: not this one}}]
      rescue: [{debug: {msg: all is well}}]
    - name: Start the machine
      command: sh -c 'echo half; echo >&2 no such image; exit 3'",
    )
    .await;
    assert_eq!(kind, "failed");
    let expected =
        r#"playbook play.yml failed (exit status 2): task "Start the machine" on localhost: "#;
    assert!(
        message.starts_with(expected) && message.ends_with("no such image"),
        "{message}"
    );
    assert!(
        log.contains("PLAY RECAP") && log.contains("no such image"),
        "{log}"
    );
}

#[tokio::test]
async fn failures_in_loops_name_the_items_that_failed() {
    let (_, message, _) = fail_one("\n    - fail: {msg: \"item {{ item }} broke\"}\n      loop: [1, 2, 3]\n      when: item != 2").await;
    assert!(
        message.contains("item 1 broke; ") && message.ends_with("item 3 broke"),
        "{message}"
    );
}

#[tokio::test]
async fn hidden_failures_and_results_say_that_they_are_hidden() {
    let (_, message, _) = fail_one("\n    - fail: {msg: secret}\n      no_log: true").await;
    assert!(
        message.contains("hidden by no_log") && !message.contains("secret"),
        "{message}"
    );
    for looped in ["", "\n      loop: [1]"] {
        let tasks = format!(
            "\n    - name: Tell\n      set_fact: {{duffy_out: {{nodes: []}}}}\n      no_log: true{looped}"
        );
        let (kind, message, _) = fail_one(&tasks).await;
        assert_eq!(kind, "bad result");
        assert!(
            message.contains(r#""Tell" is hidden; remove no_log"#),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_host_is_a_failure() {
    let site = Site::empty();
    site.write(
        "play.yml",
        "- hosts: all\n  gather_facts: false\n  tasks: [{ping: }]\n",
    );
    // Nothing listens on port 1, and no name is looked up.
    site.write("hosts", "127.0.0.1 ansible_port=1 ansible_connection=ssh\n");
    site.configure("inventory = hosts");
    let error = provision_at(&site, 1).await.unwrap_err();
    let message = error.to_string();
    assert!(
        message
            .starts_with("playbook play.yml failed (exit status 4): task \"ping\" on 127.0.0.1: "),
        "{message}"
    );
}

#[tokio::test]
async fn results_of_the_wrong_kind_are_refused_with_the_log() {
    // The unit tests of `judge_run` have all other kinds.
    for (value, part) in [
        ("{nodes: null}", "duffy_out.nodes is null; make it a list"),
        ("words", "duffy_out is a string"),
        ("{nodes: [.nan]}", "cannot be read"),
    ] {
        let (kind, message, log) =
            fail_one(&format!("\n    - set_fact: {{duffy_out: {value}}}")).await;
        assert_eq!(kind, "bad result", "{message}");
        assert!(message.contains(part), "{value}: {message}");
        assert!(log.contains("PLAY RECAP"), "{log}");
    }
}

#[tokio::test]
async fn a_playbook_without_a_result_is_refused() {
    let (kind, message, _) = fail_one("\n    - set_fact: {other: 1}").await;
    assert_eq!(
        (kind, message.as_str()),
        (
            "bad result",
            "playbook play.yml: it ended without a result; let it set_fact duffy_out, on a host that it runs on"
        )
    );
    // A play whose hosts match nothing also ends with success.
    let site = Site::empty();
    site.write(
        "play.yml",
        "- hosts: nowhere\n  tasks: [{set_fact: {duffy_out: {nodes: []}}}]\n",
    );
    let error = provision_at(&site, 1).await.unwrap_err();
    assert!(
        matches!(error, MechanismError::BadResult { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn syntax_errors_and_missing_playbooks_are_told_in_ansibles_words() {
    let site = site_with("\n    - nonsense_module_that_is_not: {a: 1}");
    let error = provision_at(&site, 1).await.unwrap_err();
    assert!(
        error.to_string().contains("ERROR")
            && error.to_string().contains("nonsense_module_that_is_not"),
        "{error}"
    );
    site.write("play.yml", "- hosts: [\n");
    let error = provision_at(&site, 1).await.unwrap_err();
    assert!(
        matches!(&error, MechanismError::Failed { log, .. } if !log.is_empty()),
        "{error:?}"
    );
    assert!(error.to_string().contains("ERROR"), "{error}");
    std::fs::remove_file(site.topdir().join("play.yml")).unwrap();
    let error = provision_at(&site, 1).await.unwrap_err();
    assert!(
        error.to_string().contains("play.yml could not be found"),
        "{error}"
    );
}

#[tokio::test]
async fn ten_megabytes_of_output_leave_the_last_lines() {
    let tasks = r#"
    - debug: {msg: "{{ 'all work and no play ' * 25000 }}"}
      loop: "{{ range(20) | list }}"
    - set_fact: {duffy_out: {nodes: []}}
    - fail: {msg: the end}"#;
    let (_, message, log) = fail_one(tasks).await;
    assert!(message.ends_with("the end"), "{message}");
    assert!(
        log.len() < 100_000 && log.contains("PLAY RECAP"),
        "{}",
        log.len()
    );
}

#[tokio::test]
async fn output_that_is_no_utf8_does_no_harm() {
    let (_, _, log) =
        fail_one("\n    - fail: {msg: \"{{ lookup('pipe', 'printf caf\\\\351') }}\"}").await;
    assert!(log.contains("caf"), "{log}");
}

#[tokio::test]
async fn deprovisioning_gets_the_data_and_names_nodes_by_it() {
    let tasks = "\n    - set_fact: {duffy_out: {nodes: \"{{ duffy_in.nodes[1:] | map(attribute='data.provision') | list }}\"}}";
    let site = site_with(tasks);
    let results = mechanism(settings(&site))
        .deprovision(&nodes(3), &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(
        match_deprovisioned(&nodes(3), &results),
        [false, true, true]
    );
}

#[tokio::test]
async fn without_a_playbook_deprovisioning_is_done_for_all_nodes() {
    let site = Site::empty();
    let mut changed = settings(&site);
    changed.deprovision = None;
    let mut nodes = nodes(3);
    nodes[1].ipaddr = None;
    nodes[2].data = json!({});
    let results = mechanism(changed)
        .deprovision(&nodes, &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(match_deprovisioned(&nodes, &results), [true, true, true]);
}

#[tokio::test]
async fn no_nodes_need_no_playbook() {
    let mut changed = settings(&Site::empty());
    changed.ansible_playbook = "/no/such/program".into();
    assert_eq!(
        provision(changed.clone(), 0).await.unwrap(),
        Vec::<Value>::new()
    );
    assert!(
        mechanism(changed)
            .deprovision(&[], &CancellationToken::new())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_directory_of_a_run_is_private_and_removed() {
    let tasks = r#"
    - set_fact: {events: "{{ lookup('env', 'DUFFY_ANSIBLE_EVENTS') }}"}
    - command: "stat -c %a {{ events | dirname }} {{ events | dirname }}/vars.yml {{ events | dirname }}/callbacks/duffy_events.py"
      register: modes
    - set_fact: {duffy_out: {nodes: ["{{ events }}", "{{ modes.stdout_lines | join(' ') }}"]}}"#;
    let results = provision_one(tasks).await.unwrap();
    assert_eq!(results[1], "700 600 600");
    let events = Path::new(results[0].as_str().unwrap());
    assert!(!events.parent().unwrap().exists());
}

/// Roles, inventory, configuration and callbacks are those of the site's directory, and prompts are not answered.
#[tokio::test]
async fn the_sites_own_things_are_used() {
    let site = Site::empty();
    site.configure("callback_plugins = own_callbacks\ninventory = hosts\nforce_color = True");
    site.write("own_callbacks/own.py", concat!(
        "import os\nfrom ansible.plugins.callback import CallbackBase\n",
        "class CallbackModule(CallbackBase):\n",
        "    CALLBACK_VERSION = 2.0\n    CALLBACK_TYPE = 'notification'\n    CALLBACK_NAME = 'own'\n",
        "    def v2_playbook_on_stats(self, stats):\n        open('own-callback-ran', 'w').close()\n"));
    site.write("hosts", "[made]\nnode1 ansible_connection=local\n");
    site.write("roles/tell/tasks/main.yml", "- pause: {prompt: anybody?}\n  ignore_errors: true\n- set_fact: {duffy_out: {nodes: [\"{{ lookup('pipe', 'pwd -P') }}\", \"{{ inventory_hostname }}\"]}}\n");
    site.write(
        "play.yml",
        "- hosts: made\n  gather_facts: false\n  roles: [tell]\n",
    );
    let results = provision_at(&site, 1).await.unwrap();
    let topdir = site.topdir().canonicalize().unwrap();
    assert_eq!(results, [json!(topdir.to_str().unwrap()), json!("node1")]);
    assert!(site.topdir().join("own-callback-ran").exists());
}

#[tokio::test]
async fn a_missing_program_is_told_with_a_remedy() {
    let site = site_with("\n    - ping:");
    let mut changed = settings(&site);
    changed.ansible_playbook = "no-such-ansible-playbook".into();
    let message = "no-such-ansible-playbook: program not found; install ansible-core, or see that ansible-playbook is in the service's PATH";
    assert_eq!(
        mechanism(changed.clone()).check().unwrap_err().to_string(),
        message
    );
    let error = provision(changed, 1).await.unwrap_err();
    assert!(
        matches!(&error, MechanismError::Setup { detail } if detail == message),
        "{error:?}"
    );
}

#[tokio::test]
async fn variables_that_cannot_be_rendered_are_told() {
    let site = site_with("\n    - ping:");
    let mut changed = settings(&site);
    let vars = &mut changed.provision.as_mut().unwrap().extra_vars;
    vars.insert("x".to_owned(), json!("{{ nobody.knows }}"));
    let error = provision(changed, 1).await.unwrap_err();
    assert!(matches!(error, MechanismError::Setup { .. }), "{error:?}");
    let message = error.to_string();
    assert!(
        message.starts_with("extra-vars for playbook play.yml: ") && message.contains("nobody"),
        "{message}"
    );
}

type Change = fn(&mut Ansible);

#[test]
fn the_check_at_the_start_names_what_is_missing() {
    let site = site_with("\n    - ping:");
    mechanism(settings(&site)).check().unwrap();
    let cases: [(Change, &str); 5] = [
        (
            |settings| settings.topdir = "/no/such/dir".into(),
            "topdir /no/such/dir is not a directory; create it",
        ),
        (
            |settings| settings.topdir.push("play.yml"),
            "play.yml is not a directory",
        ),
        (
            |settings| settings.provision = None,
            "set provision.playbook",
        ),
        (
            |settings| settings.provision.as_mut().unwrap().playbook = "gone.yml".into(),
            "correct provision.playbook or topdir",
        ),
        (
            |settings| settings.deprovision.as_mut().unwrap().playbook = PathBuf::from("."),
            "not a file; correct deprovision.playbook",
        ),
    ];
    for (change, part) in cases {
        let mut changed = settings(&site);
        change(&mut changed);
        let error = mechanism(changed).check().unwrap_err();
        assert!(
            matches!(error, MechanismError::Setup { .. }) && error.to_string().contains(part),
            "{error}"
        );
    }
    let mut changed = settings(&site);
    changed.deprovision = None;
    mechanism(changed).check().unwrap();
}

#[tokio::test]
async fn a_hanging_playbook_is_ended_at_its_deadline() {
    let site = site_with("\n    - debug: {msg: before}\n    - command: sleep 3600");
    let mut changed = settings(&site);
    changed.timeout = Duration::from_secs(12);
    let error = provision(changed, 1).await.unwrap_err();
    let MechanismError::Deadline { after, log } = error else {
        panic!("{error:?}")
    };
    assert_eq!(after, Duration::from_secs(12));
    assert!(log.contains("TASK"), "{log}");
}

#[test]
fn the_program_under_test_is_there() {
    assert!(
        ansible_playbook().is_file(),
        "DUFFY_TEST_ANSIBLE names no file: {}",
        ansible_playbook().display()
    );
    assert!(play("").contains("localhost"));
}
