//! Text of nodes is data for a playbook, and is never evaluated; templates of the configuration are. Tested with the
//! oldest `ansible-playbook` that the tests' Python can run, and with the newest.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::{Path, PathBuf};

use duffy_server::nodes::mechanism::MechanismNode;
use duffy_server::worker::Mechanisms;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::common_ansible::{Site, ansible_playbook, play};

/// The oldest `ansible-playbook` that the tests' Python can run.
fn oldest_ansible_playbook() -> PathBuf {
    std::env::var_os("DUFFY_TEST_ANSIBLE_OLDEST").map(PathBuf::from).expect(
        "this test runs an old ansible-playbook: run `make test-deps`, or set DUFFY_TEST_ANSIBLE_OLDEST to the path of one",
    )
}

/// Uses everything that a playbook can get, in the usual ways.
const TASKS: &str = r#"
    - debug: {msg: "{{ item }}, {{ item.hostname }}"}
      loop: "{{ duffy_in.nodes }}"
    - set_fact: {hostnames: "{{ hostnames | default([]) + [item.hostname] }}"}
      loop: "{{ duffy_in.nodes }}"
    - set_fact: {provision: "{{ duffy_in.nodes[0].data.provision }}"}
    - set_fact: {pairs: "{{ provision | dict2items }}"}
    - set_fact: {keys: "{{ provision.counts | list }}"}
    - set_fact: {first_key: "{{ keys[0] }}"}
    - debug: {msg: "{{ pairs }} {{ keys }} {{ first_key }}"}
    - set_fact: {joined: "{{ keys | join(' ') }} {{ hostnames | join(' ') }}"}
    - command: {argv: [printf, "%s", "{{ duffy_in.nodes[0].hostname }}"]}
      register: printed
    - debug: {msg: "{{ item.key }}: {{ item.value }}"}
      loop: "{{ provision.counts | dict2items }}"
    - when: duffy_in.nodes[0].hostname != 'x' and first_key != 'x'
      set_fact:
        duffy_out:
          nodes:
            - "{{ duffy_in.nodes[0] }}"
            - hostnames: "{{ hostnames }}"
              keys: "{{ keys }}"
              first_key: "{{ first_key }}"
              pairs: "{{ pairs | items2dict }}"
              joined: "{{ joined }}"
              printed: "{{ printed.stdout }}"
              from_node: "{{ from_node }}"
              deep: "{{ deep.from_node }}"
              evaluated: "{{ evaluated | string }} {{ counted | string }} {{ listed[0] | string }} {{ indirect | string }}"
"#;

const CONFIG: &str = r#"
nodepools:
  concrete:
    pool:
      own: "{{ 2 + 2 }}"
      mechanism:
        type: ansible
        ansible:
          topdir: TOPDIR
          ansible-playbook: PROGRAM
          extra-vars:
            evaluated: "{% raw %}{{ lookup('pipe', 'touch TOPDIR/evaluated; echo 1') }}{% endraw %}"
            counted: "{% raw %}{{ duffy_in.nodes | length }}{% endraw %}"
            listed: ["{{ 1 + 2 }}"]
            indirect: "{{ own }}"
            from_node: "of {{ duffy_in.nodes[0].hostname }}"
            deep: {from_node: "{{ duffy_in.nodes[0].hostname }}"}
          provision: {playbook: play.yml}
          deprovision: {playbook: play.yml}
"#;

/// A template that makes Ansible write a file with the name of the template's place.
fn payload(site: &Site, place: &str) -> String {
    let file = site.topdir().join(format!("CANARY-{place}"));
    format!("{{{{ lookup('pipe', 'touch {}') }}}}", file.display())
}

fn hostile_node(site: &Site) -> MechanismNode {
    let odd = [
        "!unsafe \"x\": {",
        "é \u{2028}\u{7f}\u{85}\u{1f600} ' \" \\ \t\n end",
        "0123",
        "0x1F",
        "1e3",
        "1:30",
        "yes",
        "no\n",
        "null",
        "~",
        "=",
        "<<",
        "2020-01-31",
        "",
    ];
    let mut counts: Map<String, Value> =
        odd.iter().map(|text| ((*text).into(), json!(1))).collect();
    counts.insert(payload(site, "key"), json!(1));
    counts.insert("{% broken".to_owned(), json!(1));
    counts.insert("long ".repeat(500), json!(1.5e300));
    let templates = ["{{ undefined_variable }}", "{% broken", "{# gone #} text"];
    let mut provision = json!({
        "counts": counts,
        "odd": odd,
        "templates": templates,
        "numbers": [1, -1.5, 1e300, 0, u64::MAX, true, null],
        "deep": {payload(site, "deep-key"): [{"a": [payload(site, "deep")]}]},
        "__ansible_unsafe": payload(site, "unsafe"),
        "__ansible_vault": {"a": payload(site, "vault")},
    });
    for _ in 0..50 {
        provision = json!({"deeper": [provision], "counts": counts});
    }
    MechanismNode {
        id: 7,
        hostname: Some(payload(site, "hostname")),
        ipaddr: Some(payload(site, "ipaddr")),
        data: json!({
            "provision": provision,
            "error": {"detail": payload(site, "error")},
            "nodes_spec": {"pool": payload(site, "pool"), "quantity": 1},
        }),
    }
}

/// A node of which only the keys of a mapping could be evaluated.
fn node_with_hostile_keys(site: &Site) -> MechanismNode {
    MechanismNode {
        id: 7,
        hostname: Some("10.0.0.7".to_owned()),
        ipaddr: Some("10.0.0.7".to_owned()),
        data: json!({"provision": {"counts": {"good": 1, payload(site, "only-key"): 2}}}),
    }
}

/// The data that a playbook gets.
fn without_templates_in_keys(data: &Value) -> Value {
    match data {
        Value::Array(items) => items.iter().map(without_templates_in_keys).collect(),
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| !key.contains('{'))
            .map(|(key, value)| (key.clone(), without_templates_in_keys(value)))
            .collect(),
        other => other.clone(),
    }
}

async fn check_with(program: &Path) {
    for node in [hostile_node, node_with_hostile_keys] {
        check_node(program, node).await;
    }
}

async fn check_node(program: &Path, node: fn(&Site) -> MechanismNode) {
    let site = Site::empty();
    site.write("play.yml", &play(TASKS));
    let config = CONFIG
        .replace("TOPDIR", site.topdir().to_str().unwrap())
        .replace("PROGRAM", program.to_str().unwrap());
    let config = duffy_config::load_text(&config, "duffy.yaml").unwrap();
    let mechanisms = Mechanisms::open(&config).await.unwrap();
    let (mechanism, _) = mechanisms.get("pool").unwrap();
    let node = node(&site);
    let results = mechanism
        .deprovision(std::slice::from_ref(&node), &CancellationToken::new())
        .await
        .unwrap_or_else(|error| panic!("{}: {error}\n{}", program.display(), error.log()));

    let hostname = node.hostname.clone().unwrap();
    let data = without_templates_in_keys(&node.data);
    let provision = &data["provision"];
    let counts = provision["counts"].as_object().unwrap();
    let keys: Vec<&String> = counts.keys().collect();
    let joined: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
    assert_eq!(
        results,
        [
            json!({"id": 7, "hostname": hostname, "ipaddr": node.ipaddr, "data": data}),
            json!({
                "hostnames": [hostname],
                "keys": keys,
                "first_key": keys[0],
                "pairs": provision,
                "joined": format!("{} {hostname}", joined.join(" ")),
                "printed": hostname,
                "from_node": format!("of {hostname}"),
                "deep": hostname,
                "evaluated": "1 1 3 4",
            })
        ]
    );
    let left: Vec<_> = std::fs::read_dir(site.topdir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.contains(&"evaluated".to_owned()), "{left:?}");
    assert!(
        !left.iter().any(|name| name.starts_with("CANARY")),
        "{left:?}"
    );
}

#[tokio::test]
async fn the_oldest_ansible_evaluates_no_text_of_nodes() {
    check_with(&oldest_ansible_playbook()).await;
}

#[tokio::test]
async fn the_newest_ansible_evaluates_no_text_of_nodes() {
    check_with(&ansible_playbook()).await;
}
