//! Files to typed sections: what is accepted, what is refused, and the messages.
#![expect(
    clippy::unwrap_used,
    reason = "also outside test functions: panics are a test's way to fail"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use duffy_config::{
    Config, ConfigError, DatabaseUrl, LogLevel, Mechanism, Rendered, RenderedVar, RenderedVars,
    ReuseValue, SshClient, SslMode, load, load_files, load_text,
};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

/// Files in a directory that is removed after the test.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Loads files. Errors contain only their names, not the directory.
    fn load(&self, names: &[&str]) -> Result<Config, String> {
        let paths: Vec<_> = names.iter().map(|name| self.path(name)).collect();
        let prefix = format!("{}/", self.0.path().display());
        load_files(&paths).map_err(|error| error.to_string().replace(&prefix, ""))
    }
}

fn read(text: &str) -> Result<Config, String> {
    Files::new(&[("duffy.yaml", text)]).load(&["duffy.yaml"])
}

fn accept(text: &str) -> Config {
    read(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refuse(text: &str) -> String {
    match read(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error,
    }
}

#[test]
fn nothing_is_a_configuration() {
    for text in [
        "",
        "---\n",
        "# comment\n",
        "{}\n",
        "---\n---\n",
        "app:\nnodepools: ~\n",
    ] {
        let config = accept(text);
        assert!(config.app.is_none() && config.nodepools.is_none());
        assert_eq!(config.tasks.concurrency, 8);
        assert_eq!(config.tasks.fill_pools_interval, Duration::from_mins(5));
        assert_eq!(config.ssh.timeout, Duration::from_mins(1));
        assert!(config.warnings.is_empty());
    }
}

/// Returns the keys that the sources of the sections read.
fn keys() -> BTreeSet<String> {
    let sections = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sections");
    let mut directories = vec![sections];
    let mut keys = BTreeSet::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path)
                .unwrap()
                .replace([' ', '\n'], "");
            let reads = [
                ".read(\"",
                ".read_or(\"",
                ".read_required(\"",
                ".require(\"",
            ];
            let reads = reads.iter().chain(&[".get(\"", "decode_range(fields,\""]);
            for key in reads.flat_map(|read| text.split(read).skip(1)) {
                keys.insert(key.split('"').next().unwrap().to_owned());
            }
        }
    }
    keys
}

#[test]
fn the_documents_have_every_key() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let documented = std::fs::read_to_string(root.join("docs/configuration.md")).unwrap();
    let example = std::fs::read_to_string(root.join("etc/duffy-example-config.yaml")).unwrap();
    let in_key = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let code = documented.split('`').skip(1).step_by(2);
    let documented: BTreeSet<_> = code.flat_map(|code| code.split(|c| !in_key(c))).collect();
    let words = example.split(|c| !in_key(c) && c != ':');
    let exemplified: BTreeSet<_> = words.filter_map(|word| word.strip_suffix(':')).collect();
    let keys = keys();
    assert!(keys.contains("backoff-min") && keys.contains("trusted-proxies"));
    for key in &keys {
        assert!(
            documented.contains(key.as_str()),
            "docs/configuration.md lacks {key}"
        );
        assert!(
            exemplified.contains(key.as_str()),
            "etc/duffy-example-config.yaml lacks {key}"
        );
    }
}

#[test]
fn the_example_configuration_is_sound() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../etc/duffy-example-config.yaml");
    let config = load_files(&[path]).unwrap();
    assert_eq!(
        config.sections,
        [
            "app",
            "metaclient",
            "client",
            "tasks",
            "database",
            "ssh",
            "defaults",
            "nodepools"
        ]
    );
    assert!(config.database.as_ref().unwrap().url().is_ok());
    let pools = config.nodepools.as_ref().unwrap();
    assert!(pools.concrete().count() >= 3);
    for pool in pools.concrete() {
        let nodes = json!({"duffy_in": {"nodes": [{"id": 1, "hostname": null, "ipaddr": null}]}});
        let Value::Object(overrides) = nodes else {
            unreachable!()
        };
        if let Mechanism::Ansible(ansible) = &pool.mechanism {
            let vars = ansible.extra_vars_for(ansible.provision.as_ref().unwrap());
            pool.render_vars(&vars, &overrides).unwrap();
        }
    }
    // There are warnings about the original's unused keys, and no others.
    assert!(
        config
            .warnings
            .iter()
            .all(|warning| warning.contains("not used")),
        "{:?}",
        config.warnings
    );
}

/// The original's results: value, and the port or nothing.
#[test]
fn ports_are_read_as_the_original_reads_them() {
    let answers = [
        ("8080", Some(8080)),
        ("'8080'", Some(8080)),
        ("' 8080 '", Some(8080)),
        ("'8_080'", Some(8080)),
        ("'+8080'", Some(8080)),
        ("'8080.0'", Some(8080)),
        ("8080.0", Some(8080)),
        ("'007'", Some(7)),
        ("0o17", None),
        ("017", Some(15)),
        ("1:20", Some(80)),
        ("true", Some(1)),
        ("!!binary ODA4MA==", Some(8080)),
        ("'8e3'", None),
        ("8080.5", None),
        ("false", None),
        ("'true'", None),
        ("0", None),
        ("65536", None),
        ("[1]", None),
        ("2024-01-01", None),
        ("'0x10'", None),
        ("'-0'", None),
        ("'8080.'", None),
        ("'1__0'", None),
        ("''", None),
        ("99999999999999999999999999", None),
    ];
    for (text, expected) in answers {
        let found = read(&format!("app: {{port: {text}}}\n"))
            .ok()
            .map(|config| config.app.unwrap().port);
        assert_eq!(found, expected, "{text}");
    }
    assert_eq!(accept("app: {port: }").app.unwrap().port, 8080);
}

#[test]
fn other_values_are_read_as_the_original_reads_them() {
    let pool = "nodepools: {concrete: {a: {mechanism: {type: simulated}, ";
    for (text, expected) in [
        ("yes", Some(true)),
        ("'YES'", Some(true)),
        ("y", Some(true)),
        ("'t'", Some(true)),
        ("1", Some(true)),
        ("'1'", Some(true)),
        ("1.0", Some(true)),
        ("off", Some(false)),
        ("'off'", Some(false)),
        ("0", Some(false)),
        ("~", Some(true)),
        ("2", None),
        ("'true '", None),
        ("enabled", None),
        ("[]", None),
    ] {
        let config = read(&format!("{pool} run-parallel: {text}}}}}}}\n"));
        let found = config
            .ok()
            .map(|config| config.nodepools.unwrap().get("a").unwrap().run_parallel);
        assert_eq!(found, expected, "run-parallel: {text}");
    }
    for (text, expected) in [
        ("false", Some(None)),
        ("0", Some(None)),
        ("0.0", Some(None)),
        ("~", Some(None)),
        ("{}", Some(None)),
        ("{a: 1}", Some(Some(ReuseValue::Number(1)))),
        ("{a: x}", Some(Some(ReuseValue::Template("x".into())))),
        ("{a: true}", Some(Some(ReuseValue::Number(1)))),
        ("{a: 1.0}", Some(Some(ReuseValue::Number(1)))),
        ("{a: '1'}", Some(Some(ReuseValue::Template("1".into())))),
        ("true", None),
        ("'no'", None),
        ("{a: 1.5}", None),
        ("{a: }", None),
        ("{1: 1}", None),
        ("{a: [1]}", None),
        ("{a: 2024-01-01}", None),
    ] {
        let config = read(&format!("{pool} reuse-nodes: {text}}}}}}}\n"));
        let found = config.ok().map(|config| {
            let pools = config.nodepools.unwrap();
            pools
                .get("a")
                .unwrap()
                .reuse_nodes
                .as_ref()
                .map(|values| values["a"].clone())
        });
        assert_eq!(found, expected, "reuse-nodes: {text}");
    }
    for (text, expected) in [
        ("1", Some(1)),
        ("'5'", Some(5)),
        ("010", Some(8)),
        ("99999999999", Some(u32::MAX)),
        ("0", None),
        ("-1", None),
        ("x", None),
    ] {
        let config = read(&format!("{pool} fill-level: {text}}}}}}}\n"));
        let found = config.ok().map(|config| {
            config
                .nodepools
                .unwrap()
                .get("a")
                .unwrap()
                .fill_level
                .unwrap()
        });
        assert_eq!(found, expected, "fill-level: {text}");
    }
    for (text, millis) in [
        ("1", Some(1_000)),
        ("6h", Some(21_600_000)),
        ("+6h", Some(21_600_000)),
        ("1.5", Some(1_500)),
        ("'90'", Some(90_000)),
        ("1h 30m", Some(5_400_000)),
        ("1H", Some(3_600_000)),
        ("1:30", Some(90_000)),
        ("true", Some(1_000)),
        ("1500ms", Some(1_500)),
        ("0", Some(1_000)),
        ("'1.5'", None),
        ("-5", None),
        ("-1h", None),
        ("''", None),
        ("6 h", None),
        ("1m1h", None),
        ("~", None),
        (".inf", None),
        (".nan", None),
        ("1.0e+300", None),
        ("99999999999w", None),
        ("18446744073709551615", None),
    ] {
        let config = read(&format!(
            "tasks: {{periodic: {{fill-pools: {{interval: {text}}}}}}}\n"
        ));
        let found = config
            .ok()
            .map(|config| config.tasks.fill_pools_interval.as_millis());
        assert_eq!(found, millis, "interval: {text}");
    }
    for (text, fine) in [
        ("x", true),
        ("'7'", true),
        ("!!binary eA==", true),
        ("7", false),
        ("true", false),
        ("1.5", false),
        ("2024-01-01", false),
        ("[x]", false),
    ] {
        assert_eq!(
            read(&format!("app: {{host: {text}}}\n")).is_ok(),
            fine,
            "host: {text}"
        );
    }
    for (text, fine) in [
        ("info", true),
        ("'critical'", true),
        ("INFO", false),
        ("off", false),
        ("warn", false),
    ] {
        assert_eq!(
            read(&format!("app: {{loglevel: {text}}}\n")).is_ok(),
            fine,
            "loglevel: {text}"
        );
    }
    for (text, fine) in [
        ("1", true),
        ("1.0", true),
        ("true", true),
        ("'1'", false),
        ("2", false),
    ] {
        assert_eq!(
            read(&format!(
                "app: {{logging: {{version: {text}, anything: [1]}}}}\n"
            ))
            .is_ok(),
            fine,
            "version: {text}"
        );
    }
    for (text, expected) in [
        ("1", Some(1.0)),
        ("'0.5'", Some(0.5)),
        ("true", Some(1.0)),
        ("0", Some(0.0)),
        (".inf", None),
        ("-1", None),
        ("x", None),
        (".nan", None),
    ] {
        let config = read(&format!(
            "nodepools: {{concrete: {{a: {{mechanism: {{type: simulated, simulated: {{ssh-failure-rate: {text}}}}}}}}}}}\n"
        ));
        let rate = config.ok().map(|config| {
            match &config.nodepools.unwrap().get("a").unwrap().mechanism {
                Mechanism::Simulated(simulated) => simulated.ssh_failure_rate,
                other @ Mechanism::Ansible(_) => panic!("{other:?}"),
            }
        });
        assert_eq!(rate, expected, "ssh-failure-rate: {text}");
    }
}

#[test]
fn keys_and_urls_of_the_client_are_checked() {
    let with = |url: &str, key: &str| {
        read(&format!(
            "client: {{url: {url}, auth: {{name: x, key: {key}}}}}\n"
        ))
    };
    let key = "a8b9899d-b128-59a1-aa86-754920b7f5ed";
    for (url, fine) in [
        ("http://x", true),
        ("https://x/y", true),
        ("'http:/x'", true),
        ("' http://x '", true),
        ("HTTP://x", true),
        ("ftp://x", false),
        ("x", false),
        ("http://", false),
        ("5", false),
    ] {
        assert_eq!(with(url, key).is_ok(), fine, "{url}");
    }
    for (key, fine) in [
        (key, true),
        ("A8B9899DB12859A1AA86754920B7F5ED", true),
        ("'{a8b9899d-b128-59a1-aa86-754920b7f5ed}'", true),
        ("urn:uuid:a8b9899d-b128-59a1-aa86-754920b7f5ed", true),
        ("x", false),
        ("5", false),
        ("' a8b9899d-b128-59a1-aa86-754920b7f5ed'", false),
    ] {
        assert_eq!(with("http://x", key).is_ok(), fine, "{key}");
    }
    let client = with("http://x/api/v1", key).unwrap().client.unwrap();
    assert_eq!(
        (client.url.as_str(), client.auth_key.expose_secret()),
        ("http://x/api/v1", key)
    );
    assert!(!format!("{client:?}").contains(key), "a secret is shown");
}

#[test]
fn every_problem_is_told_with_its_place_and_remedy() {
    let error = refuse(
        "app:\n  prot: 8080\n  port: 0\n  host: 10\ntasks:\n  lease: 1s\n  backoff-min: 1m\n  backoff-max: 1s\n\
         unknown: 1\nclient:\n  url: nowhere\n  auth: {name: x}\nnodepools:\n  concrete:\n    foo:\n      fill-level: -3\n\
         \x20     mechanism: {type: anisble, ansible: {topdir: 1}}\n",
    );
    insta::assert_snapshot!(error, @r#"
    duffy.yaml:9: unknown: unknown key; known here: client, app, metaclient, tasks, database, defaults, ssh, nodepools
    duffy.yaml:11: client.url: must be a URL that starts with http:// or https://
    duffy.yaml:12: client.auth: the key key is missing; add it
    duffy.yaml:2: app.prot: unknown key; did you mean port?
    duffy.yaml:4: app.host: must be text, not a whole number; put it in quotes
    duffy.yaml:3: app.port: must be a whole number from 1 to 65535, not 0
    duffy.yaml:6: tasks.lease: must be at least 5 s
    duffy.yaml:8: tasks.backoff-max: must not be shorter than backoff-min, which is 60 s
    duffy.yaml:16: nodepools.concrete.foo.fill-level: must be a whole number of at least 1, not -3
    duffy.yaml:17: nodepools.concrete.foo.mechanism.type: must be one of ansible, simulated
    duffy.yaml:17: nodepools.concrete.foo.mechanism.ansible.topdir: must be text, not a whole number; put it in quotes
    "#);
}

#[test]
fn text_that_is_no_yaml_is_refused_with_its_place() {
    insta::assert_snapshot!(refuse("app:\n  port: [1\n"), @"duffy.yaml:2: column 9: this is not YAML: unclosed bracket '['");
    insta::assert_snapshot!(refuse("app: *nowhere\n"), @"duffy.yaml:1: column 6: the alias *nowhere has no anchor; write &nowhere before the value it stands for, earlier in the document");
    insta::assert_snapshot!(refuse("app: &a [*a]\n"), @"duffy.yaml:1: column 10: this alias is inside the value that it names, which would never end; write the value out");
    insta::assert_snapshot!(refuse("app: !vault x\n"), @"duffy.yaml:1: column 6: the tag !vault does not belong here; leave it out, or use !!str, !!int, !!float, !!bool, !!seq or !!map");
    insta::assert_snapshot!(refuse("? [a]\n: 1\n"), @"duffy.yaml:1: column 3: a list cannot be a key; use text");
    insta::assert_snapshot!(refuse("- app\n"), @"duffy.yaml:1: a document must be a mapping of sections such as app: or nodepools:, not a list");
    insta::assert_snapshot!(refuse("app: 2024-13-01\n"), @"duffy.yaml:1: column 6: this looks like a date but is not a valid one; quote it if it is text");
}

#[test]
fn documents_that_would_fill_the_memory_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    assert!(refuse(&bomb).contains("use fewer aliases"));

    let mut merges = String::from("a0: &a0 {k0: 1}\n");
    for level in 1..40 {
        let before = level - 1;
        writeln!(
            merges,
            "a{level}: &a{level} {{<<: [*a{before}, *a{before}, *a{before}], k{level}: 1}}"
        )
        .unwrap();
    }
    assert!(refuse(&merges).contains("use fewer aliases"));

    assert!(refuse(&format!("{}{}", "[".repeat(200), "]".repeat(200))).contains("deep"));
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..300 {
        writeln!(chain, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    assert!(refuse(&chain).contains("deep"));
}

#[test]
fn files_are_merged_in_order() {
    let files = Files::new(&[
        (
            "etc/20_b.yml",
            "app: {port: 2, host: b}\n---\napp: {port: 3}\n",
        ),
        ("etc/10_a.yaml", "app: {port: 1, loglevel: info}\n"),
        ("etc/30_c.txt", "nonsense: [\n"),
        ("etc/sub/40.yaml", "nonsense: [\n"),
        ("last.conf", "app: {host: last}\n"),
    ]);
    let config = files.load(&["etc", "last.conf"]).unwrap();
    let app = config.app.unwrap();
    assert_eq!(
        (app.port, app.host.as_str(), app.loglevel),
        (3, "last", Some(LogLevel::Info))
    );
    assert_eq!(
        config.tree,
        json!({"app": {"port": 3, "loglevel": "info", "host": "last"}})
    );
    assert_eq!(
        duffy_config::yaml::dump(&config.tree),
        "app:\n  host: last\n  loglevel: info\n  port: 3\n"
    );
    let names: Vec<_> = config
        .files
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["10_a.yaml", "20_b.yml", "last.conf"]);
}

#[test]
fn what_cannot_be_merged_names_both_places() {
    let files = Files::new(&[
        ("a.yaml", "app:\n  host: x\n"),
        ("b.yaml", "\n\napp: 1\n"),
        ("c.yaml", "app: {host: {x: 1}}\n"),
    ]);
    insta::assert_snapshot!(files.load(&["a.yaml", "b.yaml"]).unwrap_err(), @"b.yaml:3: app: this is a whole number, but a.yaml:1 has a mapping here, and the two cannot be merged; make both mappings or remove one");
    insta::assert_snapshot!(files.load(&["a.yaml", "c.yaml"]).unwrap_err(), @"c.yaml:1: app.host: this is a mapping, but a.yaml:2 has text here, and the two cannot be merged; make both mappings or remove one");
}

#[test]
fn paths_that_were_asked_for_must_be_readable() {
    let files = Files::new(&[("empty/.keep", ""), ("latin.yaml", "")]);
    assert!(matches!(
        load(&[files.path("nowhere.yaml")]),
        Err(ConfigError::Unreadable { .. })
    ));
    assert!(
        files
            .load(&["nowhere.yaml"])
            .unwrap_err()
            .contains("nowhere.yaml: cannot read this configuration: No such file")
    );
    assert!(files.load(&["empty"]).unwrap().files.is_empty());
    std::fs::write(files.path("latin.yaml"), b"app:\n  host: \xe9\n").unwrap();
    insta::assert_snapshot!(files.load(&["latin.yaml"]).unwrap_err(), @"latin.yaml:2: column 1: this line is not UTF-8; save the file in that encoding");
    std::fs::write(files.path("latin.yaml"), vec![b' '; (16 << 20) + 1]).unwrap();
    assert!(
        files
            .load(&["latin.yaml"])
            .unwrap_err()
            .contains("too large")
    );
}

const POOLS: &str = r#"
nodepools:
  abstract:
    base:
      run-parallel: no
      mechanism:
        type: ansible
        ansible:
          topdir: playbooks
          extra-vars: {nodepool: "{{ name }}", mode: 0644, list: ["{{ name }}"], deep: {x: "{{ name | upper }}"}}
          provision:
            playbook: provision.yml
            extra-vars:
              quantity: "{{ duffy_in.nodes | length }}"
              template_name: >-
                {% set parts=name.split("-") %}duffy-{{ parts[1:] | join("-") }}
          deprovision: {playbook: deprovision.yml}
    x86:
      architecture: x86_64
      fill-level: 5
      reuse-nodes: {architecture: "{{ architecture }}", racks: 2}
  concrete:
    virtual-centos9-x86_64:
      extends: [base, x86]
      fill-level: 3
    child:
      extends: virtual-centos9-x86_64
      reuse-nodes: {racks: 3}
"#;

#[test]
fn pools_inherit_from_one_or_several() {
    let config = accept(POOLS);
    let pools = config.nodepools.unwrap();
    let names: Vec<_> = pools.concrete().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["virtual-centos9-x86_64", "child"]);
    assert!(
        pools.is_abstract("base") && !pools.is_abstract("child") && pools.get("base").is_none()
    );
    let pool = pools.get("virtual-centos9-x86_64").unwrap();
    assert_eq!((pool.fill_level, pool.run_parallel), (Some(3), false));
    let reuse = pool.reuse_nodes.as_ref().unwrap();
    assert_eq!(reuse["racks"], ReuseValue::Number(2));
    let ReuseValue::Template(template) = &reuse["architecture"] else {
        panic!("{reuse:?}")
    };
    assert_eq!(pool.render(template, &Map::new()).unwrap(), "x86_64");
    assert_eq!(pool.vars["name"], "virtual-centos9-x86_64");
    assert!(!pool.vars.contains_key("extends"));

    let Mechanism::Ansible(ansible) = &pool.mechanism else {
        panic!("{:?}", pool.mechanism)
    };
    assert_eq!(ansible.topdir, PathBuf::from("playbooks"));
    assert_eq!(ansible.timeout, Duration::from_hours(1));
    assert_eq!(ansible.ansible_playbook, PathBuf::from("ansible-playbook"));
    let vars = ansible.extra_vars_for(ansible.provision.as_ref().unwrap());
    let Value::Object(overrides) = json!({"duffy_in": {"nodes": [{}, {}]}}) else {
        unreachable!()
    };
    let text = |text: &str, overridden| {
        let text = text.to_owned();
        RenderedVar::Text(Rendered { text, overridden })
    };
    let deep = RenderedVars::from([("x".to_owned(), text("VIRTUAL-CENTOS9-X86_64", false))]);
    let expected = [
        ("nodepool", text("virtual-centos9-x86_64", false)),
        ("mode", RenderedVar::Plain(json!(420))),
        ("list", RenderedVar::Plain(json!(["{{ name }}"]))),
        ("deep", RenderedVar::Mapping(deep)),
        ("quantity", text("2", true)),
        ("template_name", text("duffy-centos9-x86_64", false)),
    ];
    assert_eq!(
        pool.render_vars(&vars, &overrides).unwrap(),
        expected.map(|(name, var)| (name.to_owned(), var)).into()
    );

    let child = pools.get("child").unwrap();
    assert_eq!(child.fill_level, Some(3));
    let reuse = child.reuse_nodes.as_ref().unwrap();
    assert_eq!((&reuse["racks"], reuse.len()), (&ReuseValue::Number(3), 2));
    assert_eq!(child.render("{{ name }}", &Map::new()).unwrap(), "child");
}

/// However a template reads a value of the overrides, this is detected; and so is that it reads none.
#[test]
fn it_is_known_which_texts_may_contain_overrides() {
    let text = "nodepools:\n  concrete:\n    p:\n      mechanism: {type: simulated}\n      own: '{{ duffy_in }}'\n      nodes: [1]\n";
    let config = load_text(text, "duffy.yaml").unwrap();
    let pool = config.nodepools.as_ref().unwrap().get("p").unwrap();
    let overrides = json!({"duffy_in": {"nodes": [{"hostname": "n"}]}});
    for (template, overridden) in [
        ("", false),
        ("{{ own }}", false),
        ("{{ nodes }}", false),
        ("{% raw %}{{ duffy_in.nodes }}{% endraw %}", false),
        ("{{ '{{ duffy_in.nodes }}' }}", false),
        ("{# duffy_in #}", false),
        ("{{ {'a': own}.duffy_in }}", false),
        ("{{ duffy_in }}", true),
        ("{{ duffy_in.nodes | length }}", true),
        (
            "{% for node in duffy_in.nodes %}{{ node.hostname }}{% endfor %}",
            true,
        ),
        (
            "{% set a = duffy_in %}{% set b = a.nodes %}{{ b[0].hostname }}",
            true,
        ),
        ("{% set b %}{{ duffy_in }}{% endset %}{{ b }}", true),
        (
            "{% macro m() %}{{ duffy_in.nodes }}{% endmacro %}{{ m() }}",
            true,
        ),
        ("{% with a = [duffy_in] %}{{ a[0] }}{% endwith %}", true),
        ("{{ (duffy_in | list) ~ 'x' }}", true),
        ("{% if duffy_in.nodes %}yes{% endif %}", true),
        ("{{ {duffy_in.nodes[0].hostname: 1} }}", true),
        // Assigned in a branch that is not taken.
        (
            "{% if false %}{% set duffy_in = 1 %}{% endif %}{{ duffy_in }}",
            true,
        ),
    ] {
        let vars = json!({"v": template});
        let rendered = pool.render_vars(vars.as_object().unwrap(), overrides.as_object().unwrap());
        let rendered = rendered.unwrap_or_else(|error| panic!("{template}: {error}"));
        let RenderedVar::Text(rendered) = &rendered["v"] else {
            panic!("{rendered:?}")
        };
        assert_eq!(rendered.overridden, overridden, "{template}");
    }
    let dumped = pool.render("{{ debug() }}", overrides.as_object().unwrap());
    assert!(
        !dumped.as_deref().unwrap_or_default().contains("hostname"),
        "{dumped:?}"
    );
}

#[test]
fn pools_that_cannot_be_made_are_refused() {
    let pools = |text: &str| refuse(&format!("nodepools:\n{text}"));
    insta::assert_snapshot!(pools("  concrete:\n    a:\n      extends: basse\n  abstract:\n    base: {}\n"), @r#"duffy.yaml:4: nodepools.concrete.a.extends: there is no pool "basse" to extend; did you mean base?"#);
    insta::assert_snapshot!(pools("  concrete:\n    a: {extends: b}\n    b: {extends: [c]}\n    c: {extends: a}\n"), @"duffy.yaml:5: nodepools.concrete.c.extends: pools extend one another in a circle: a → b → c → a; remove one link");
    insta::assert_snapshot!(pools("  concrete:\n    a: {extends: a}\n"), @"duffy.yaml:3: nodepools.concrete.a.extends: pools extend one another in a circle: a → a; remove one link");
    insta::assert_snapshot!(pools("  concrete:\n    a: {fill-level: 1}\n"), @"duffy.yaml:3: nodepools.concrete.a: the key mechanism is missing here and in what this pool extends; add mechanism: {type: ansible, …}");
    insta::assert_snapshot!(pools("  concrete:\n    a: {mechanism: {ansible: {topdir: x}}}\n"), @"duffy.yaml:3: nodepools.concrete.a.mechanism: the key type is missing; add it");
    insta::assert_snapshot!(pools("  concrete:\n    a: {mechanism: {type: ansible, ansible: {provision: {extra-vars: {}}}}}\n"), @"duffy.yaml:3: nodepools.concrete.a.mechanism.ansible.provision: the key playbook is missing; add it");
    insta::assert_snapshot!(pools("  concrete:\n    a: ~\n"), @"duffy.yaml:3: nodepools.concrete.a: must be a mapping, not nothing");
    insta::assert_snapshot!(pools("  abstract: {a: {}}\n"), @"duffy.yaml:1: nodepools: the key concrete is missing; add it");
    insta::assert_snapshot!(pools("  abstract:\n    a: {}\n  concrete:\n    a: {}\n"), @"
    duffy.yaml:5: nodepools.concrete.a: there is a pool of this name already, at duffy.yaml:3; rename one
    duffy.yaml:5: nodepools.concrete.a: the key mechanism is missing here and in what this pool extends; add mechanism: {type: ansible, …}
    ");
    insta::assert_snapshot!(pools("  concrete:\n    a: {extends: b, x: 1}\n    b: {x: {y: 1}, mechanism: {type: simulated}}\n"), @"duffy.yaml:3: nodepools.concrete.a.x: this is a whole number, but duffy.yaml:4 has a mapping here, and the two cannot be merged; make both mappings or remove one");
    insta::assert_snapshot!(pools("  concrete:\n    a:\n      mechanism:\n        type: ansible\n        ansible:\n          extra-vars:\n            bad: '{{ name'\n"), @"duffy.yaml:8: nodepools.concrete.a.mechanism.ansible.extra-vars.bad: this template is wrong: unexpected end of input, expected end of variable block");
    insta::assert_snapshot!(pools("  concrete:\n    7: {}\n"), @"duffy.yaml:3: nodepools.concrete.7: this key must be text; quote it");
    insta::assert_snapshot!(pools("  concrete:\n    a: {name: b}\n"), @"duffy.yaml:3: nodepools.concrete.a.name: a pool's name is the key of its mapping; remove this");
    let chain: Vec<_> = (0..200)
        .map(|index| format!("    p{index}: {{extends: p{}}}", index + 1))
        .collect();
    let chain = chain.join(
        "
",
    );
    assert!(
        pools(&format!("  concrete:\n{chain}\n    p200: {{}}\n")).contains("in a row; use fewer")
    );
}

#[test]
fn likely_mistakes_in_pools_are_remarked_on() {
    let config = accept(
        "nodepools:\n  concrete:\n    a:\n      mechanism: {type: simulated}\n      fill_level: 3\n      arch: x\n",
    );
    assert_eq!(config.nodepools.unwrap().get("a").unwrap().fill_level, None);
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].ends_with("duffy.yaml:5: nodepools.concrete.a.fill_level: this is passed on to templates only; did you mean fill-level?"));
}

#[test]
fn additions_have_defaults_and_limits() {
    let config = accept(
        "app: {max-connections: 5, header-timeout: 2s, trusted-proxies: [192.0.2.1, 10.1.0.0/16, '2001:db8::/32']}\nssh: {client: openssh, connect-timeout: 1s, timeout: 1m, identity-files: [/key], config-file: /c}\n\
         tasks: {concurrency: 3, lease: 10s, attempts: 2, backoff-min: 10m, celery: {broker_url: 'redis://x', any: 1}}\n\
         database: {pool-size: 3, sqlalchemy: {sync_url: 'sqlite:///x.db'}}\nmetaclient: {usermap: {k: u}, poolmap: [], strict-permissions: yes, trusted-proxies: ['::1']}\n\
         nodepools: {concrete: {a: {mechanism: {type: simulated, simulated: {provision-delay: 1500ms, ssh-delay: 2s, ssh-failure-rate: 0.5, hostname: '{{ name }}.test'}}}}}\n",
    );
    let app = config.app.as_ref().unwrap();
    assert_eq!(
        (app.max_connections, app.header_timeout),
        (5, Duration::from_secs(2))
    );
    let trusted = |address: &str| app.trusted_proxies.contains(address.parse().unwrap());
    for (address, is_trusted) in [
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", true),
        ("192.0.2.2", false),
        ("10.1.255.255", true),
        ("10.2.0.0", false),
        ("2001:db8:1::7", true),
        ("2001:db9::", false),
    ] {
        assert_eq!(trusted(address), is_trusted, "{address}");
    }
    assert_eq!(
        (config.ssh.client, config.ssh.identity_files.len()),
        (SshClient::OpenSsh, 1)
    );
    assert_eq!(config.ssh.config_file.as_deref(), Some(Path::new("/c")));
    assert_eq!(
        (
            config.tasks.concurrency,
            config.tasks.lease,
            config.tasks.attempts
        ),
        (3, Duration::from_secs(10), 2)
    );
    assert_eq!(
        config.tasks.backoff_max,
        Duration::from_mins(10),
        "no shorter than backoff-min"
    );
    assert_eq!(config.database.as_ref().unwrap().pool_size, 3);
    let metaclient = config.metaclient.as_ref().unwrap();
    assert!(metaclient.strict_permissions);
    assert!(metaclient.trusted_proxies.contains("::1".parse().unwrap()));
    insta::assert_snapshot!(refuse("app:\n  trusted-proxies: [10.0.0.0/8, proxy.example.org]\n"), @r#"duffy.yaml:2: app.trusted-proxies[1]: must be an address or a network (10.0.0.0/8, 2001:db8::/32), not "proxy.example.org""#);
    insta::assert_snapshot!(refuse("app:\n  trusted-proxies: 10.0.0.0/8\n"), @"duffy.yaml:2: app.trusted-proxies: must be a list, not text");
    let default = duffy_config::App::default().trusted_proxies;
    assert!(!default.contains("127.0.0.1".parse().unwrap()));
    assert_eq!(
        (metaclient.user_of("k"), metaclient.user_of("x")),
        (Some("u"), None)
    );
    assert_eq!(metaclient.usermap_files, config.files);
    assert_eq!(metaclient.dest, None);
    let Mechanism::Simulated(simulated) = &config
        .nodepools
        .as_ref()
        .unwrap()
        .get("a")
        .unwrap()
        .mechanism
    else {
        panic!()
    };
    assert_eq!(
        (simulated.provision_delay, simulated.deprovision_delay),
        (Duration::from_millis(1500), Duration::ZERO)
    );
    assert_eq!(simulated.ssh_delay, Duration::from_secs(2));
    assert!((simulated.ssh_failure_rate - 0.5).abs() < f64::EPSILON);
    assert!(refuse("nodepools: {concrete: {a: {mechanism: {type: simulated, simulated: {ssh-failure-rate: 1.5}}}}}").contains("from 0 to 1"));
}

#[test]
fn retries_are_checked() {
    for (retries, fine) in [
        ("no-attempts: 2, delay-min: 0, delay-max: .inf", true),
        ("delay-backoff-factor: 1, delay-add-fuzz: '1.5'", true),
        ("no-attempts: 0", false),
        ("delay-min: -1", false),
        ("delay-max: x", false),
        ("delay-backoff-factor: 0.5", false),
        ("delay-add-fuzz: .nan", false),
        ("delay: 1", false),
    ] {
        for section in [
            "app: {",
            "defaults: {session-lifetime: 6h, session-lifetime-max: 12h, node-quota: 10, ",
        ] {
            let text = format!("{section}retries: {{{retries}}}}}\n");
            assert_eq!(read(&text).is_ok(), fine, "{text}");
        }
    }
}

fn database(url: &str) -> Config {
    accept(&format!(
        "database: {{sqlalchemy: {{sync_url: {}}}}}\n",
        json!(url)
    ))
}

#[test]
fn database_urls_are_read_as_sqlalchemy_reads_them() {
    let postgres = |text: &str| match DatabaseUrl::parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
    {
        DatabaseUrl::Postgres(url) => url,
        other @ DatabaseUrl::Sqlite { .. } => panic!("{text}: {other:?}"),
    };
    let plain = postgres("postgresql://duffy:secret@db.test:5433/duffy");
    assert_eq!(
        (
            plain.host.as_deref(),
            plain.port,
            plain.user.as_deref(),
            plain.database.as_deref()
        ),
        (Some("db.test"), Some(5433), Some("duffy"), Some("duffy"))
    );
    assert_eq!(plain.password.as_ref().unwrap().expose_secret(), "secret");
    assert!(!format!("{plain:?}").contains("secret"));
    for text in [
        "postgresql:///duffy",
        "postgresql+asyncpg:///duffy",
        "postgresql+psycopg2:///duffy",
        "postgres:///duffy",
    ] {
        let url = postgres(text);
        assert_eq!(
            (url.host, url.user, url.database.as_deref()),
            (None, None, Some("duffy")),
            "{text}"
        );
    }
    let odd = postgres("postgresql://us%40er:p%40%2F%25%zz:/?#[x@h/d");
    assert_eq!(odd.user.as_deref(), Some("us@er"));
    assert_eq!(odd.password.unwrap().expose_secret(), "p@/%%zz:/?#[x");
    assert_eq!(odd.host.as_deref(), Some("h"));
    let socket = postgres(
        "postgresql://duffy@/duffy?host=/var/run/postgresql&port=5433&sslmode=verify-full&application_name=a+b%21&connect_timeout=3",
    );
    assert_eq!(
        (socket.host.as_deref(), socket.port, socket.ssl_mode),
        (
            Some("/var/run/postgresql"),
            Some(5433),
            Some(SslMode::VerifyFull)
        )
    );
    assert_eq!(
        (socket.application_name.as_deref(), socket.connect_timeout),
        (Some("a b!"), Some(Duration::from_secs(3)))
    );
    let six = postgres("postgresql://[::1]:5432/d?ssl=true");
    assert_eq!(
        (six.host.as_deref(), six.ssl_mode),
        (Some("::1"), Some(SslMode::Require))
    );
    for (text, path) in [
        ("sqlite:///a/b.db", "a/b.db"),
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite+aiosqlite:///x%20y.db", "x%20y.db"),
    ] {
        assert!(
            matches!(DatabaseUrl::parse(text).unwrap(), DatabaseUrl::Sqlite { path: found } if found.as_os_str() == path),
            "{text}"
        );
    }
    for (text, word) in [
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("sqlite:///x?mode=memory", "memory"),
        ("sqlite://x.db", "three slashes"),
        ("sqlite:///file:x?uri=true", "file:"),
        ("mysql://h/d", "mysql"),
        ("postgresql://h:x/d", "port"),
        ("postgresql://h:99999/d", "port"),
        ("postgresql://h/d?sslmode=maybe", "sslmode"),
        ("postgresql:///d?host=a&host=b", "several"),
        ("nothing", "not a database URL"),
        ("", "not a database URL"),
        ("://x", "not a database URL"),
        ("postgresql://[::1/d", "[::1]"),
    ] {
        let error = DatabaseUrl::parse(text).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
}

/// Such a configuration is valid for the original, and here until the database is used.
#[test]
fn databases_that_only_the_original_can_use_are_refused_when_they_are_used() {
    for url in ["sqlite:///:memory:", "mysql://h/d"] {
        let config = database(url);
        assert_eq!(config.warnings.len(), 1);
        let error = config.database.unwrap().url().unwrap_err().to_string();
        assert!(
            error.contains("duffy.yaml:1: database.sqlalchemy.sync_url: "),
            "{error}"
        );
    }
    assert!(database("postgresql://u:p@h/d").warnings.is_empty());
    assert!(read("database: {sqlalchemy: {sync_url: nothing}}\n").is_err());
    let differs = accept(
        "database: {sqlalchemy: {sync_url: 'postgresql://u:s3cret@h/d', async_url: 'postgresql+asyncpg://u:two@h/d', echo: true}}\n",
    );
    assert_eq!(differs.warnings.len(), 2, "{:?}", differs.warnings);
    assert!(
        !format!("{differs:?}").contains("s3cret"),
        "a password is shown"
    );
    let same = accept(
        "database: {sqlalchemy: {sync_url: 'postgresql://u@h/d', async_url: 'postgresql+asyncpg://u@h:5432/d'}}\n",
    );
    assert!(same.warnings.is_empty(), "{:?}", same.warnings);
    assert!(!format!("{:?}", differs.database).contains("s3cret"));
}

#[test]
fn default_paths_follow_the_environment() {
    let paths = duffy_config::default_paths();
    assert_eq!(paths[0], PathBuf::from("/etc/duffy"));
    assert!(paths.len() == 1 || paths[1].ends_with("duffy"));
}
