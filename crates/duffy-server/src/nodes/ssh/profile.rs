//! What ssh_config says about one host, as far as it concerns Duffy.

use std::path::{Path, PathBuf};

/// The options that Duffy's own client cannot honour.
const OPENSSH_ONLY: [&str; 6] = [
    "ProxyJump",
    "ProxyCommand",
    "CertificateFile",
    "PKCS11Provider",
    "BindAddress",
    "BindInterface",
];

/// What ssh_config says about one host, as far as it concerns Duffy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub user: String,
    /// The host to connect to, if it is not the target's.
    pub host_name: Option<String>,
    pub port: u16,
    pub identity_files: Vec<PathBuf>,
    pub identities_only: bool,
    /// The agent's socket, if an agent is used.
    pub agent: Option<PathBuf>,
    pub family: Family,
    /// The first option that Duffy's own client cannot honour.
    pub needs_openssh: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Profile {
    /// The values where ssh_config says nothing: the user is root, as it always was with Duffy.
    pub fn usual(home: &Path) -> Self {
        Self {
            user: "root".to_owned(),
            host_name: None,
            port: 22,
            identity_files: usual_identities(home),
            identities_only: false,
            agent: path_in_variable("SSH_AUTH_SOCK"),
            family: Family::Any,
            needs_openssh: None,
        }
    }

    /// Reads what `ssh -G` printed for a host.
    pub fn parse(printed: &str, host: &str, home: &Path) -> Self {
        let mut profile = Self::usual(home);
        profile.identity_files.clear();
        for line in printed.lines() {
            let Some((key, value)) = line.split_once(' ') else {
                continue;
            };
            let value = value.trim();
            let unset = value.is_empty() || value.eq_ignore_ascii_case("none");
            match key {
                "user" => value.clone_into(&mut profile.user),
                "hostname" if value != host => profile.host_name = Some(value.to_owned()),
                "port" => profile.port = value.parse().unwrap_or(profile.port),
                "identityfile" if !unset => {
                    let path = expand(value, host, &profile.user, home);
                    profile.identity_files.extend(path.map(PathBuf::from));
                }
                "identitiesonly" => profile.identities_only = value == "yes",
                "identityagent" => profile.agent = find_agent(value, host, &profile.user, home),
                "addressfamily" => {
                    profile.family = match value {
                        "inet" => Family::V4,
                        "inet6" => Family::V6,
                        _ => Family::Any,
                    }
                }
                "hostbasedauthentication" if value == "yes" => {
                    profile
                        .needs_openssh
                        .get_or_insert("HostbasedAuthentication");
                }
                _ if unset => {}
                _ => {
                    let mut options = OPENSSH_ONLY.into_iter();
                    let found = options.find(|option| option.eq_ignore_ascii_case(key));
                    profile.needs_openssh = profile.needs_openssh.or(found);
                }
            }
        }
        profile
    }
}

/// The identities that are tried where ssh_config names none, as far as Duffy's own client can use them.
pub(super) fn usual_identities(home: &Path) -> Vec<PathBuf> {
    let names = ["id_ed25519", "id_ecdsa", "id_rsa"];
    names.map(|name| home.join(".ssh").join(name)).into()
}

fn path_in_variable(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name);
    value.filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The agent's socket: `none`, an environment variable or a path.
fn find_agent(value: &str, host: &str, user: &str, home: &Path) -> Option<PathBuf> {
    let variable = value
        .strip_prefix('$')
        .filter(|name| !name.starts_with('{'));
    match variable {
        Some(name) => path_in_variable(name),
        None if value == "SSH_AUTH_SOCK" => path_in_variable(value),
        None if value.eq_ignore_ascii_case("none") => None,
        None => expand(value, host, user, home).map(PathBuf::from),
    }
}

/// Expands what ssh_config allows in paths. `None` for a token that Duffy does not know.
fn expand(value: &str, host: &str, user: &str, home: &Path) -> Option<String> {
    let home = home.to_str()?;
    let value = match value.strip_prefix("~/") {
        Some(rest) => format!("{home}/{rest}"),
        None => value.to_owned(),
    };
    let mut result = String::new();
    let mut rest = value.as_str();
    while let Some(at) = rest.find(['%', '$']) {
        result.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("${") {
            let (name, after) = after.split_once('}')?;
            result.push_str(&std::env::var(name).ok()?);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else {
            let token = rest.chars().nth(1)?;
            match token {
                '%' => result.push('%'),
                'd' => result.push_str(home),
                'h' | 'n' => result.push_str(host),
                'r' => result.push_str(user),
                'u' => result.push_str(
                    &nix::unistd::User::from_uid(nix::unistd::getuid())
                        .ok()??
                        .name,
                ),
                'i' => result.push_str(&nix::unistd::getuid().to_string()),
                _ => return None,
            }
            rest = &rest[1 + token.len_utf8()..];
        }
    }
    result.push_str(rest);
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_prints_is_read() {
        let printed = "user admin\nhostname 10.0.0.9\nport 2200\nidentityfile ~/.ssh/id_x\n\
                       identityfile /keys/%r@%h%%\nidentityfile %Z\nidentitiesonly yes\n\
                       identityagent none\naddressfamily inet6\nproxycommand none\n";
        let profile = Profile::parse(printed, "node", Path::new("/home/d"));
        assert_eq!(
            profile,
            Profile {
                user: "admin".to_owned(),
                host_name: Some("10.0.0.9".to_owned()),
                port: 2200,
                identity_files: vec!["/home/d/.ssh/id_x".into(), "/keys/admin@node%".into()],
                identities_only: true,
                agent: None,
                family: Family::V6,
                needs_openssh: None,
            }
        );
    }

    #[test]
    fn what_our_client_cannot_do_is_named() {
        for (line, option) in [
            ("proxyjump gate", Some("ProxyJump")),
            ("proxycommand nc %h %p", Some("ProxyCommand")),
            ("certificatefile ~/x-cert.pub", Some("CertificateFile")),
            ("proxyjump none", None),
        ] {
            let profile = Profile::parse(line, "node", Path::new("/home/d"));
            assert_eq!(profile.needs_openssh, option, "{line}");
        }
    }

    #[test]
    fn agents_are_found_where_they_are_said_to_be() {
        let agent = |value: &str| {
            let line = format!("identityagent {value}");
            Profile::parse(&line, "node", Path::new("/home/d")).agent
        };
        let usual = Profile::usual(Path::new("/home/d")).agent;
        assert_eq!(agent("SSH_AUTH_SOCK"), usual);
        let path = std::env::var_os("PATH").unwrap();
        assert_eq!(agent("$PATH"), Some(path.into()));
        assert_eq!(agent("$DUFFY_NO_SUCH_VARIABLE"), None);
        assert_eq!(agent("~/a.sock"), Some("/home/d/a.sock".into()));
        assert_eq!(agent("none"), None);
    }
}
