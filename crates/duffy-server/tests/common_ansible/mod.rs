//! A site with playbooks, run by the real `ansible-playbook`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use duffy_config::{Ansible, Mechanism, Playbook, Pool};
use duffy_server::nodes::ansible::AnsibleMechanism;
use duffy_server::nodes::mechanism::MechanismNode;
use serde_json::{Map, json};

/// The real program. The tests fail without it, because they would test nothing.
pub fn ansible_playbook() -> PathBuf {
    std::env::var_os("DUFFY_TEST_ANSIBLE").map(PathBuf::from).expect(
        "this test runs the real ansible-playbook: install ansible-core and set DUFFY_TEST_ANSIBLE to the path of ansible-playbook",
    )
}

/// A directory of playbooks that is removed with it.
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// A site that keeps ansible's own files in its directory.
    pub fn empty() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("duffy-test-site-")
            .tempdir()
            .expect("a directory");
        let site = Self { dir };
        site.configure("");
        site
    }

    /// Writes `ansible.cfg`, with more lines in its section `[defaults]`.
    pub fn configure(&self, lines: &str) {
        let home = self.topdir().join("home");
        let text = format!(
            "[defaults]\nhome = {0}\nlocal_tmp = {0}/tmp\nremote_tmp = {0}/tmp\nlocalhost_warning = False\n{lines}\n",
            home.display()
        );
        self.write("ansible.cfg", &text);
    }

    /// Writes a file of the site.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.topdir().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    /// The site's directory.
    pub fn topdir(&self) -> &Path {
        self.dir.path()
    }
}

/// A playbook with these tasks on localhost.
pub fn play(tasks: &str) -> String {
    format!("- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n{tasks}\n")
}

/// Settings that use a playbook for both purposes, with two extra variables.
pub fn settings_for(topdir: &Path, playbook: &str) -> Ansible {
    let playbook = Some(Playbook {
        playbook: playbook.into(),
        extra_vars: Map::new(),
    });
    let extra_vars = json!({
        "greeting": "hällo \"wörld\" 'x' \\ \u{2028}",
        "template": "{% raw %}{{ greeting | length }}{% endraw %}",
    });
    Ansible {
        ansible_playbook: ansible_playbook(),
        topdir: topdir.to_owned(),
        extra_vars: extra_vars.as_object().expect("an object").clone(),
        provision: playbook.clone(),
        deprovision: playbook,
        timeout: Duration::from_mins(2),
    }
}

/// The mechanism of a pool with these settings.
pub fn mechanism(settings: Ansible) -> AnsibleMechanism {
    let settings = Box::new(settings);
    let pool = Pool {
        name: "pool".to_owned(),
        fill_level: None,
        run_parallel: true,
        reuse_nodes: None,
        mechanism: Mechanism::Ansible(settings.clone()),
        vars: Map::new(),
    };
    AnsibleMechanism { pool, settings }
}

/// Nodes that were provisioned with their address.
pub fn nodes(count: i64) -> Vec<MechanismNode> {
    let node = |id: i64| {
        let ipaddr = format!("10.0.0.{id}");
        MechanismNode {
            id,
            hostname: None,
            data: json!({"provision": {"ipaddr": ipaddr}}),
            ipaddr: Some(ipaddr),
        }
    };
    (1..=count).map(node).collect()
}
