//! What ssh_config says about one host, as far as it concerns us.

use std::path::{Path, PathBuf};

/// The identities that are tried when nothing else is said, as far as our client can use them.
const USUAL_IDENTITIES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// What ssh_config says about one host, as far as it concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub user: String,
    /// The host to connect to, if it is not the one that was asked for.
    pub host_name: Option<String>,
    pub port: u16,
    pub identity_files: Vec<PathBuf>,
    pub identities_only: bool,
    pub agent: Agent,
    pub family: Family,
    /// The option that our own client cannot honour.
    pub needs_openssh: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Agent {
    /// The one that the environment variable names, which is usually `SSH_AUTH_SOCK`.
    Variable(String),
    Socket(PathBuf),
    None,
}

impl Agent {
    /// The agent's socket, if there is to be an agent at all.
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::Variable(name) => std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from),
            Self::Socket(path) => Some(path.clone()),
            Self::None => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Profile {
    /// What holds where ssh_config says nothing: root, as ever with Duffy.
    pub fn usual(home: &Path) -> Self {
        let identity_files = USUAL_IDENTITIES
            .iter()
            .map(|name| home.join(".ssh").join(name))
            .collect();
        Self {
            user: "root".to_owned(),
            host_name: None,
            port: 22,
            identity_files,
            identities_only: false,
            agent: Agent::Variable("SSH_AUTH_SOCK".to_owned()),
            family: Family::Any,
            needs_openssh: None,
        }
    }

    /// Reads what `ssh -G` printed for a host.
    pub fn parse(printed: &str, host: &str, home: &Path) -> Self {
        let mut profile = Self::usual(home);
        profile.identity_files.clear();
        let mut unusable: Option<&'static str> = None;
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
                "identityagent" => profile.agent = parse_agent(value, host, &profile.user, home),
                "addressfamily" => {
                    profile.family = match value {
                        "inet" => Family::V4,
                        "inet6" => Family::V6,
                        _ => Family::Any,
                    }
                }
                "proxyjump" if !unset => unusable = unusable.or(Some("ProxyJump")),
                "proxycommand" if !unset => unusable = unusable.or(Some("ProxyCommand")),
                "certificatefile" if !unset => unusable = unusable.or(Some("CertificateFile")),
                "pkcs11provider" if !unset => unusable = unusable.or(Some("PKCS11Provider")),
                "bindaddress" if !unset => unusable = unusable.or(Some("BindAddress")),
                "bindinterface" if !unset => unusable = unusable.or(Some("BindInterface")),
                "hostbasedauthentication" if value == "yes" => {
                    unusable = unusable.or(Some("HostbasedAuthentication"));
                }
                _ => {}
            }
        }
        profile.needs_openssh = unusable;
        profile
    }
}

fn parse_agent(value: &str, host: &str, user: &str, home: &Path) -> Agent {
    if value.eq_ignore_ascii_case("none") {
        Agent::None
    } else if value == "SSH_AUTH_SOCK" {
        Agent::Variable(value.to_owned())
    } else if let Some(name) = value
        .strip_prefix('$')
        .filter(|rest| !rest.starts_with('{'))
    {
        Agent::Variable(name.to_owned())
    } else {
        expand(value, host, user, home).map_or(Agent::None, |path| Agent::Socket(path.into()))
    }
}

/// Expands what ssh_config allows in paths; nothing if we do not know how.
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
                agent: Agent::None,
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
        assert_eq!(
            agent("SSH_AUTH_SOCK"),
            Agent::Variable("SSH_AUTH_SOCK".to_owned())
        );
        assert_eq!(agent("$OTHER"), Agent::Variable("OTHER".to_owned()));
        assert_eq!(agent("~/a.sock"), Agent::Socket("/home/d/a.sock".into()));
        assert_eq!(agent("none"), Agent::None);
    }
}
