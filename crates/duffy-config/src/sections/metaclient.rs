//! `metaclient`: the old API, for clients that know no other.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::{
    LogLevel, TrustedProxies, accept_python_logging, decode_http_url, decode_port, decode_template,
};
use crate::decode::{Cursor, Report};
use crate::pattern::{Pattern, PatternError};
use crate::template::{self, TemplateError};

/// The `metaclient` section.
#[derive(Debug, Clone)]
pub struct Metaclient {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Base URL of the web API, as written, without `/api/v1`; [`Metaclient::DEFAULT_DEST`] holds where it is absent.
    pub dest: Option<String>,
    /// How much is logged; `None` leaves it to the command line.
    pub loglevel: Option<LogLevel>,
    /// API keys and the names of the tenants they belong to.
    pub usermap: Vec<(SecretString, String)>,
    /// The files in which these keys stand.
    pub usermap_files: Vec<PathBuf>,
    /// Which pool a request means; the first entry that matches.
    pub poolmap: Vec<PoolMap>,
    /// Template of the host name that clients get to see; `hostname` is the real one.
    pub mangle_hostname: Option<String>,
    /// Whether the old API is not served while others can read a file with its keys. An addition.
    pub strict_permissions: bool,
    /// Proxies that are believed when they say for whom they ask, as in `app`. An addition.
    pub trusted_proxies: TrustedProxies,
}

/// One entry of `poolmap`.
#[derive(Debug, Clone)]
pub struct PoolMap {
    /// Template of the pool's name, with `ver`, `arch` and `flavor`.
    pub pool: String,
    /// Which versions; any when absent.
    pub ver: Option<Selector>,
    /// Which architectures; any when absent.
    pub arch: Option<Selector>,
    /// Which flavors; any when absent.
    pub flavor: Option<Selector>,
}

/// Which values of one kind an entry is for.
#[derive(Debug, Clone)]
pub enum Selector {
    /// This one.
    Text(String),
    /// Those that a regular expression of Python's matches: text between `^` and `$`.
    Pattern(Pattern),
}

/// What a client of the old API asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolRequest<'a> {
    /// Version of the operating system.
    pub ver: Option<&'a str>,
    /// Architecture.
    pub arch: Option<&'a str>,
    /// Size of the machine.
    pub flavor: Option<&'a str>,
}

impl Metaclient {
    /// Where the web API is when nothing else is said.
    pub const DEFAULT_DEST: &'static str = "http://127.0.0.1:8080";

    /// The tenant that an API key belongs to.
    pub fn user_of(&self, key: &str) -> Option<&str> {
        self.usermap
            .iter()
            .find(|(known, _)| known.expose_secret() == key)
            .map(|(_, user)| user.as_str())
    }

    /// The name of the pool that a request means: of the first entry that is for it.
    ///
    /// # Errors
    /// That entry's template cannot be rendered with what was asked for.
    pub fn pool_for(&self, request: &PoolRequest<'_>) -> Result<Option<String>, TemplateError> {
        let entry = self.poolmap.iter().find(|entry| entry.selects(request));
        entry
            .map(|entry| template::render(&entry.pool, &request.values()))
            .transpose()
    }

    /// A node's host name as clients get to see it; none stays none unless there is a template.
    ///
    /// # Errors
    /// The template cannot be rendered with this name.
    pub fn mangled(&self, hostname: Option<&str>) -> Result<Option<String>, TemplateError> {
        // An empty template counts as none.
        let template = self.mangle_hostname.as_deref().filter(|t| !t.is_empty());
        let Some(template) = template else {
            return Ok(hostname.map(ToOwned::to_owned));
        };
        let values = Map::from_iter([("hostname".to_owned(), hostname.unwrap_or_default().into())]);
        template::render(template, &values).map(Some)
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
            "trusted-proxies",
        ];
        let fields = cursor.fields(report, known)?;
        let host = fields.read(report, "host", Cursor::owned_text);
        let port = fields.read(report, "port", decode_port);
        let dest = fields.read(report, "dest", decode_http_url);
        let loglevel = fields.read(report, "loglevel", LogLevel::decode);
        fields.read(report, "logging", accept_python_logging);
        let mangle_hostname = fields.read(report, "mangle_hostname", decode_template);
        let strict = fields.read(report, "strict-permissions", Cursor::boolean);
        let proxies = fields.read(report, "trusted-proxies", TrustedProxies::decode);
        let usermap = fields.read_required(report, "usermap", decode_usermap);
        let (usermap, usermap_files) = usermap.unzip();
        let poolmap = fields.read_required(report, "poolmap", Cursor::items);
        let poolmap = poolmap.map(|items| {
            items
                .iter()
                .filter_map(|at| PoolMap::decode(at, report))
                .collect()
        });
        Some(Self {
            host: host.unwrap_or_else(|| "127.0.0.1".into()),
            port: port.unwrap_or(9090),
            dest,
            loglevel,
            usermap: usermap?,
            usermap_files: usermap_files?,
            poolmap: poolmap?,
            mangle_hostname,
            strict_permissions: strict.unwrap_or(false),
            trusted_proxies: proxies.unwrap_or_default(),
        })
    }
}

impl PoolRequest<'_> {
    /// For a template: what was not asked for is not defined.
    fn values(&self) -> Map<String, Value> {
        let all = [
            ("ver", self.ver),
            ("arch", self.arch),
            ("flavor", self.flavor),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
            .collect()
    }
}

impl PoolMap {
    /// Whether this entry is for the request. An entry without a pool's name is for none.
    pub fn selects(&self, request: &PoolRequest<'_>) -> bool {
        let fits = |selector: &Option<Selector>, value: Option<&str>| match (selector, value) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(selector), Some(value)) => selector.matches(value),
        };
        !self.pool.is_empty()
            && fits(&self.ver, request.ver)
            && fits(&self.arch, request.arch)
            && fits(&self.flavor, request.flavor)
    }

    fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let fields = cursor.fields(report, &["pool", "ver", "arch", "flavor"])?;
        let pool = fields.read_required(report, "pool", decode_template);
        let ver = fields.read(report, "ver", Selector::decode);
        let arch = fields.read(report, "arch", Selector::decode);
        let flavor = fields.read(report, "flavor", Selector::decode);
        Some(Self {
            pool: pool?,
            ver,
            arch,
            flavor,
        })
    }
}

impl Selector {
    /// Empty text selects everything, as does no selector at all.
    fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let text = cursor.text(report)?;
        if text.is_empty() {
            return None;
        }
        if !(text.starts_with('^') && text.ends_with('$')) {
            return Some(Self::Text(text.to_owned()));
        }
        match Pattern::parse(text) {
            Ok(pattern) => Some(Self::Pattern(pattern)),
            Err(PatternError(cause)) => cursor.refuse(
                report,
                format!("{text:?} is no regular expression that can be used: {cause}"),
            ),
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Text(text) => text == value,
            Self::Pattern(pattern) => pattern.matches(value),
        }
    }
}

/// Keys with the names of their tenants.
type Users = Vec<(SecretString, String)>;

fn decode_usermap(cursor: &Cursor<'_>, report: &mut Report) -> Option<(Users, Vec<PathBuf>)> {
    let (mut users, mut files) = (Vec::new(), Vec::new());
    for (index, (key, mut user)) in cursor.entries(report)?.into_iter().enumerate() {
        // The keys are secrets and must not get into messages.
        user.path = format!("{}[{index}]", cursor.path);
        let file = PathBuf::from(&*user.mark.file);
        if !files.contains(&file) {
            files.push(file);
        }
        if let Some(name) = user.owned_text(report) {
            users.push((SecretString::from(key), name));
        }
    }
    Some((users, files))
}
