//! Tables of good and bad results, and properties of all results.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn node(id: i64, provision: &Value) -> MechanismNode {
    MechanismNode {
        id,
        hostname: Some(format!("host{id}")),
        ipaddr: Some(format!("10.0.0.{id}")),
        data: if provision.is_null() {
            json!({})
        } else {
            json!({"provision": provision})
        },
    }
}

fn fresh_nodes(count: i64) -> Vec<MechanismNode> {
    (1..=count).map(|id| node(id, &Value::Null)).collect()
}

#[test]
fn usable_results() {
    for result in [
        json!({"ipaddr": "10.0.0.1"}),
        json!({"ipaddr": "2001:db8::1", "hostname": null, "ssh_port": null}),
        json!({"ipaddr": "fe80::1%eth0.5", "ssh_port": 22}),
        json!({"ipaddr": "node-1.example.org.", "ssh_port": "2222"}),
        json!({"ipaddr": "node_1", "anything": [1, {"a": null}]}),
        json!({"ipaddr": "3com"}),
    ] {
        let matched = match_provisioned(&fresh_nodes(1), std::slice::from_ref(&result));
        assert_eq!(matched, [Ok(result.as_object().cloned().unwrap())]);
    }
}

#[test]
fn useless_results() {
    for (result, part) in [
        (json!(null), "is null, not an object"),
        (json!("10.0.0.1"), "not an object"),
        (json!([{"ipaddr": "10.0.0.1"}]), "not an object"),
        (json!({}), "has no ipaddr"),
        (json!({"hostname": "a"}), "has no ipaddr"),
        (json!({"ipaddr": null}), "has no ipaddr"),
        (json!({"ipaddr": ""}), "not an address"),
        (json!({"ipaddr": 42}), "is 42, not an address"),
        (json!({"ipaddr": ["10.0.0.1"]}), "not an address"),
        (json!({"ipaddr": "10.0.0.1\n"}), "not an address"),
        (json!({"ipaddr": "10.0.0.256"}), "not an address"),
        (json!({"ipaddr": "10.0.0"}), "not an address"),
        (json!({"ipaddr": "a b"}), "not an address"),
        (json!({"ipaddr": "-oProxyCommand=reboot"}), "not an address"),
        (json!({"ipaddr": "root@host"}), "not an address"),
        (json!({"ipaddr": "[::1]"}), "not an address"),
        (json!({"ipaddr": "fe80::1%"}), "not an address"),
        (json!({"ipaddr": "a..b"}), "not an address"),
        (json!({"ipaddr": "a".repeat(64)}), "not an address"),
        (json!({"ipaddr": "{{ undefined }}"}), "not an address"),
        (
            json!({"ipaddr": "10.0.0.1", "ssh_port": 0}),
            "is not a port",
        ),
        (
            json!({"ipaddr": "10.0.0.1", "ssh_port": 65536}),
            "is not a port",
        ),
        (
            json!({"ipaddr": "10.0.0.1", "ssh_port": "ssh"}),
            "is not a port",
        ),
        (
            json!({"ipaddr": "10.0.0.1", "ssh_port": true}),
            "is not a port",
        ),
        (json!({"ipaddr": "10.0.0.1", "deep": [{"x": "a\0"}]}), "NUL"),
        (json!({"ipaddr": "10.0.0.1", "a\0": 1}), "NUL"),
    ] {
        let matched = match_provisioned(&fresh_nodes(1), std::slice::from_ref(&result));
        let error = matched[0].as_ref().unwrap_err();
        assert!(error.contains(part), "{result}: {error}");
        assert!(
            error.chars().count() < 200 && !error.contains('\n'),
            "{result}: {error}"
        );
    }
}

#[test]
fn each_result_is_for_its_own_node() {
    let good = |address: &str| json!({"ipaddr": address});
    let results = [
        good("10.0.0.1"),
        json!(null),
        good("10.0.0.1"),
        good("10.0.0.4"),
    ];
    let matched = match_provisioned(&fresh_nodes(5), &results);
    let ok: Vec<_> = matched.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, false, false, true, false]);
    assert!(matched[2].as_ref().unwrap_err().contains("earlier node"));
    assert_eq!(
        matched[4].as_ref().unwrap_err(),
        "no result for this node: 4 came back for 5 nodes"
    );
    assert_eq!(match_provisioned(&fresh_nodes(1), &results).len(), 1);
    assert!(match_provisioned(&[], &results).is_empty());
}

#[test]
fn the_same_machine_is_seen_in_any_spelling() {
    for (one, other, same) in [
        (json!({"ipaddr": "::1"}), json!({"ipaddr": "0:0::1"}), true),
        (
            json!({"ipaddr": "::ffff:10.0.0.1"}),
            json!({"ipaddr": "10.0.0.1"}),
            true,
        ),
        (
            json!({"ipaddr": "Node.example."}),
            json!({"ipaddr": "node.example"}),
            true,
        ),
        (
            json!({"ipaddr": "10.0.0.1", "ssh_port": 22}),
            json!({"ipaddr": "10.0.0.1"}),
            true,
        ),
        (
            json!({"ipaddr": "127.0.0.1", "ssh_port": 2201}),
            json!({"ipaddr": "127.0.0.1", "ssh_port": "2202"}),
            false,
        ),
    ] {
        let matched = match_provisioned(&fresh_nodes(2), &[one.clone(), other.clone()]);
        assert!(matched[0].is_ok());
        assert_eq!(matched[1].is_err(), same, "{one} {other}");
    }
}

#[test]
fn an_unusable_first_result_does_not_take_the_address() {
    let results = [
        json!({"ipaddr": "10.0.0.1", "ssh_port": 0}),
        json!({"ipaddr": "10.0.0.1"}),
    ];
    assert!(match_provisioned(&fresh_nodes(2), &results)[1].is_ok());
}

#[test]
fn host_names_in_results() {
    for (hostname, usable) in [
        (json!("node1.example.org"), true),
        (json!("10.0.0.1"), true),
        (json!(""), false),
        (json!(null), false),
        (json!(7), false),
        (json!("two words"), false),
    ] {
        let result = json!({"hostname": hostname});
        assert_eq!(
            result_hostname(result.as_object().unwrap()).is_some(),
            usable,
            "{result}"
        );
    }
    assert_eq!(result_hostname(&Map::new()), None);
}

#[test]
fn results_name_nodes_by_what_was_provisioned() {
    let nodes = [
        node(1, &json!({"ipaddr": "10.0.0.1", "host": "a", "n": 1})),
        node(
            2,
            &json!({"ipaddr": "10.0.0.2", "host": "a", "n": 2, "list": [1, {"x": 1.0}]}),
        ),
        node(3, &Value::Null),
    ];
    for (results, expected) in [
        (json!([]), [false, false, false]),
        (json!([{}, null, "10.0.0.1", 7]), [false, false, false]),
        (json!([{"ipaddr": "10.0.0.2"}]), [false, true, false]),
        (
            json!([{"ipaddr": "10.0.0.2", "host": "b"}]),
            [false, false, false],
        ),
        (
            json!([{"ipaddr": "10.0.0.2", "other": null}]),
            [false, false, false],
        ),
        (json!([{"host": "a"}]), [true, false, false]),
        (json!([{"host": "a"}, {"host": "a"}]), [true, true, false]),
        (
            json!([{"host": "a"}, {"host": "a"}, {"host": "a"}]),
            [true, true, false],
        ),
        (json!([{"n": 1.0}]), [true, false, false]),
        (json!([{"n": true}]), [true, false, false]),
        (json!([{"n": "1"}]), [false, false, false]),
        (json!([{"list": [true, {"x": 1}]}]), [false, true, false]),
        (json!([{"list": [1]}]), [false, false, false]),
        (json!([{"id": 3}]), [false, false, true]),
        (
            json!([{"id": 3, "hostname": "host3", "ipaddr": null, "data": {}}]),
            [false, false, true],
        ),
        (
            json!([{"id": 3, "hostname": "host1"}]),
            [false, false, false],
        ),
        (
            json!([{"id": 3, "ipaddr": "10.0.0.1"}]),
            [false, false, false],
        ),
        (json!([{"id": 3, "other": 1}]), [false, false, false]),
        (
            json!([{"id": 9}, {"id": "3"}, {"hostname": "host3"}]),
            [false, false, false],
        ),
    ] {
        assert_eq!(
            match_deprovisioned(&nodes, results.as_array().unwrap()),
            expected,
            "{results}"
        );
    }
}

#[test]
fn an_id_of_the_playbooks_own_comes_before_ours() {
    let nodes = [
        node(7, &json!({"id": 8, "ipaddr": "10.0.0.7"})),
        node(8, &json!({"id": 7, "ipaddr": "10.0.0.8"})),
    ];
    assert_eq!(
        match_deprovisioned(&nodes, &[json!({"id": 7})]),
        [false, true]
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..12).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c0-9.:%\\-\0]{0,8}".prop_map(Value::from),
        (1_u8..5).prop_map(|last| Value::from(format!("10.0.0.{last}"))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![
            Just("ipaddr"),
            Just("id"),
            Just("hostname"),
            Just("ssh_port"),
            Just("x")
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|pairs| pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn provisioning_answers_for_each_node_and_gives_no_machine_twice(
        count in 0_i64..6, results in prop::collection::vec(any_json(), 0..8),
    ) {
        let matched = match_provisioned(&fresh_nodes(count), &results);
        prop_assert_eq!(matched.len(), usize::try_from(count).unwrap());
        let mut machines = HashSet::new();
        for (place, result) in matched.iter().enumerate() {
            if let Ok(result) = result {
                prop_assert_eq!(Some(&Value::Object(result.clone())), results.get(place));
                let machine = (result["ipaddr"].to_string(), result_ssh_port(result).unwrap().unwrap_or(22));
                prop_assert!(machines.insert(machine));
            }
        }
    }

    #[test]
    fn deprovisioning_matches_no_more_nodes_than_there_are_results(
        provisions in prop::collection::vec(any_json(), 0..6), results in prop::collection::vec(any_json(), 0..6),
    ) {
        let nodes: Vec<_> = (1..).zip(&provisions).map(|(id, provision)| node(id, provision)).collect();
        let matched = match_deprovisioned(&nodes, &results);
        prop_assert_eq!(matched.len(), nodes.len());
        prop_assert!(matched.iter().filter(|matched| **matched).count() <= results.len());
        prop_assert!(match_deprovisioned(&nodes, &[]).iter().all(|matched| !matched));
    }

    #[test]
    fn exact_echoes_match_exactly_their_nodes(picked in prop::collection::vec(any::<bool>(), 0..8), by_id: bool) {
        let nodes: Vec<_> = (1..).zip(&picked)
            .map(|(id, _)| node(id, &json!({"ipaddr": format!("10.0.0.{id}"), "id": format!("vm-{id}"), "kind": "x"})))
            .collect();
        let mut results: Vec<_> = nodes.iter().zip(&picked).filter(|(_, picked)| **picked)
            .map(|(node, _)| if by_id { json!({"id": node.id, "data": node.data}) } else { node.data["provision"].clone() })
            .collect();
        results.reverse();
        prop_assert_eq!(match_deprovisioned(&nodes, &results), picked);
    }
}
