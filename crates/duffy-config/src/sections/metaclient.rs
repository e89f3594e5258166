//! `metaclient`: the old API, for clients that know no other.

use secrecy::{ExposeSecret, SecretString};

use super::{LogLevel, accept_python_logging, decode_http_url, decode_port};
use crate::decode::{Cursor, Report};
use crate::template;

/// The `metaclient` section.
#[derive(Debug, Clone)]
pub struct Metaclient {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Base URL of the web API, as written, without `/api/v1`.
    pub dest: String,
    /// How much is logged; `None` leaves it to the command line.
    pub loglevel: Option<LogLevel>,
    /// API keys and the names of the tenants they belong to.
    pub usermap: Vec<(SecretString, String)>,
    /// Which pool a request means; the first entry that matches.
    pub poolmap: Vec<PoolMap>,
    /// Template of the host name that clients get to see; `hostname` is the real one.
    pub mangle_hostname: Option<String>,
    /// Whether keys that are not allowed something are told so, rather than what the original says. An addition.
    pub strict_permissions: bool,
}

/// One entry of `poolmap`. A selector that is text between `^` and `$` is a regular expression.
#[derive(Debug, Clone)]
pub struct PoolMap {
    /// Template of the pool's name, with `ver`, `arch` and `flavor`.
    pub pool: String,
    /// Which versions.
    pub ver: Option<String>,
    /// Which architectures.
    pub arch: Option<String>,
    /// Which flavors.
    pub flavor: Option<String>,
}

impl Metaclient {
    /// The tenant that an API key belongs to.
    pub fn user_of(&self, key: &str) -> Option<&str> {
        self.usermap
            .iter()
            .find(|(known, _)| known.expose_secret() == key)
            .map(|(_, user)| user.as_str())
    }

    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let known = &[
            "host",
            "port",
            "dest",
            "loglevel",
            "logging",
            "usermap",
            "poolmap",
            "mangle_hostname",
            "strict-permissions",
        ];
        let fields = cursor.fields(report, known)?;
        let host = fields.get("host").and_then(|at| at.owned_text(report));
        let port = fields.get("port").and_then(|at| decode_port(&at, report));
        let dest = fields
            .get("dest")
            .and_then(|at| decode_http_url(&at, report));
        let loglevel = fields
            .get("loglevel")
            .and_then(|at| LogLevel::decode(&at, report));
        if let Some(logging) = fields.get("logging") {
            accept_python_logging(&logging, report);
        }
        let mangle_hostname = fields
            .get("mangle_hostname")
            .and_then(|at| decode_template(&at, report));
        let strict = fields
            .get("strict-permissions")
            .and_then(|at| at.boolean(report));
        let usermap = fields
            .require(report, "usermap")
            .and_then(|at| decode_usermap(&at, report));
        let poolmap = fields
            .require(report, "poolmap")
            .and_then(|at| at.items(report));
        let poolmap = poolmap.map(|items| {
            items
                .iter()
                .filter_map(|at| PoolMap::decode(at, report))
                .collect()
        });
        Some(Self {
            host: host.unwrap_or_else(|| "127.0.0.1".into()),
            port: port.unwrap_or(9090),
            dest: dest.unwrap_or_else(|| "http://127.0.0.1:8080".into()),
            loglevel,
            usermap: usermap?,
            poolmap: poolmap?,
            mangle_hostname,
            strict_permissions: strict.unwrap_or(false),
        })
    }
}

impl PoolMap {
    fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let fields = cursor.fields(report, &["pool", "ver", "arch", "flavor"])?;
        let pool = fields
            .require(report, "pool")
            .and_then(|at| decode_template(&at, report));
        let mut selector = |key| fields.get(key).and_then(|at| at.owned_text(report));
        let (ver, arch, flavor) = (selector("ver"), selector("arch"), selector("flavor"));
        Some(Self {
            pool: pool?,
            ver,
            arch,
            flavor,
        })
    }
}

fn decode_usermap(cursor: &Cursor<'_>, report: &mut Report) -> Option<Vec<(SecretString, String)>> {
    let mut users = Vec::new();
    for (index, (key, mut user)) in cursor.entries(report)?.into_iter().enumerate() {
        // The keys are secrets and must not get into messages.
        user.path = format!("{}[{index}]", cursor.path);
        if let Some(name) = user.owned_text(report) {
            users.push((SecretString::from(key), name));
        }
    }
    Some(users)
}

fn decode_template(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.owned_text(report)?;
    template::check(cursor, &text, report);
    Some(text)
}
