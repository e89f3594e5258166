//! Where the site keeps its own callbacks. An environment variable names the directory of Duffy's callback. Ansible then
//! ignores the setting in the site's `ansible.cfg`, so the variable names the site's directories too.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The variable in which ansible finds directories with callbacks.
pub(super) const CALLBACK_PLUGINS: &str = "ANSIBLE_CALLBACK_PLUGINS";

/// The value of [`CALLBACK_PLUGINS`] that adds a directory to those of playbooks that run in `topdir`.
pub(super) fn callback_dirs(
    ours: &Path,
    topdir: &Path,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> OsString {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let mut dirs = set(CALLBACK_PLUGINS)
        .or_else(|| {
            let file = find_config(topdir, &set)?;
            let text = std::fs::read(&file).ok()?;
            let value = read_default(&String::from_utf8_lossy(&text), "callback_plugins")?;
            Some(resolve_dirs(&value, file.parent()?))
        })
        .unwrap_or_else(|| {
            let mut home = set("ANSIBLE_HOME").unwrap_or_else(|| "~/.ansible".into());
            home.push("/plugins/callback:/usr/share/ansible/plugins/callback");
            home
        });
    dirs.push(":");
    dirs.push(ours);
    dirs
}

/// The configuration file that ansible would read: the first one that exists.
fn find_config(topdir: &Path, set: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let home = || set("HOME").map(PathBuf::from);
    let named = set("ANSIBLE_CONFIG").map(|path| {
        let path = match path.as_bytes().strip_prefix(b"~/") {
            Some(rest) => home().unwrap_or_default().join(OsStr::from_bytes(rest)),
            None => topdir.join(path),
        };
        if path.is_dir() {
            path.join("ansible.cfg")
        } else {
            path
        }
    });
    // Ansible does not trust a directory that everybody may write to.
    let trusted = topdir
        .metadata()
        .is_ok_and(|meta| meta.permissions().mode() & 0o002 == 0);
    [
        named,
        trusted.then(|| topdir.join("ansible.cfg")),
        home().map(|home| home.join(".ansible.cfg")),
        Some(PathBuf::from("/etc/ansible/ansible.cfg")),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.is_file())
}

/// A key of the section `[defaults]`, read as Python's configparser does.
fn read_default(text: &str, key: &str) -> Option<String> {
    let mut in_defaults = false;
    let mut found = None;
    for line in text.lines() {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.trim().strip_prefix('[') {
            in_defaults = section.split(']').next() == Some("defaults");
        } else if in_defaults
            && let Some((name, value)) = line.split_once(['=', ':'])
            && name.trim().eq_ignore_ascii_case(key)
        {
            let value = value
                .split_once(" ;")
                .map_or(value, |(value, _)| value)
                .trim();
            found = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
    }
    found
}

/// Makes paths absolute: those in the file are relative to it, those in the variable to the working directory.
fn resolve_dirs(value: &str, base: &Path) -> OsString {
    let dirs = value
        .split(':')
        .map(str::trim)
        .filter(|dir| !dir.is_empty());
    // Ansible expands these itself.
    let is_expanded = |dir: &str| dir.starts_with(['~', '$', '{']);
    let absolute = dirs.map(|dir| match dir {
        dir if is_expanded(dir) => dir.into(),
        dir => base.join(dir).into_os_string(),
    });
    absolute.collect::<Vec<OsString>>().join(OsStr::new(":"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;

    use super::*;

    fn dirs(topdir: &Path, env: &[(&str, &str)]) -> String {
        let env: HashMap<_, _> = env.iter().copied().collect();
        let look = |name: &str| env.get(name).map(OsString::from);
        callback_dirs(Path::new("/ours"), topdir, &look)
            .into_string()
            .unwrap()
    }

    #[test]
    fn keys_are_read_as_configparser_does() {
        for (text, value) in [
            ("", None),
            ("callback_plugins = a", None),
            ("[other]\ncallback_plugins = a", None),
            ("[defaults]\ncallback_plugins = a:b ; why", Some("a:b")),
            (
                "[defaults]\n# callback_plugins = a\n;callback_plugins = a",
                None,
            ),
            (
                "[defaults]\r\nCallback_Plugins: a\r\n[other]\r\ncallback_plugins=b",
                Some("a"),
            ),
            ("[defaults]\ncallback_plugins =", None),
            ("[defaults]\nno sense\n\ncallback_plugins=a", Some("a")),
        ] {
            assert_eq!(
                read_default(text, "callback_plugins").as_deref(),
                value,
                "{text}"
            );
        }
    }

    #[test]
    fn ours_comes_on_top_of_the_sites_own() {
        let dir = tempfile::tempdir().unwrap();
        let (top, home) = (dir.path().join("top"), dir.path().join("home"));
        fs::create_dir(&top).unwrap();
        fs::create_dir(&home).unwrap();
        let home_text = home.to_str().unwrap();
        let env = [("HOME", home_text)];
        assert_eq!(
            dirs(&top, &env),
            "~/.ansible/plugins/callback:/usr/share/ansible/plugins/callback:/ours"
        );

        fs::write(
            home.join(".ansible.cfg"),
            "[defaults]\ncallback_plugins = cb:~/cb:/abs\n",
        )
        .unwrap();
        assert_eq!(dirs(&top, &env), format!("{home_text}/cb:~/cb:/abs:/ours"));

        fs::write(
            top.join("ansible.cfg"),
            "[defaults]\ncallback_plugins = near\n",
        )
        .unwrap();
        assert_eq!(dirs(&top, &env), format!("{}/near:/ours", top.display()));
        fs::set_permissions(&top, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(dirs(&top, &env), format!("{home_text}/cb:~/cb:/abs:/ours"));

        let named = [("HOME", home_text), ("ANSIBLE_CONFIG", "~/.ansible.cfg")];
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            dirs(&top, &named),
            format!("{home_text}/cb:~/cb:/abs:/ours")
        );

        assert_eq!(
            dirs(&top, &[(CALLBACK_PLUGINS, "/theirs"), ("HOME", home_text)]),
            "/theirs:/ours"
        );
        assert_eq!(
            dirs(&top, &[(CALLBACK_PLUGINS, ""), ("HOME", home_text)]),
            format!("{}/near:/ours", top.display())
        );
    }
}
