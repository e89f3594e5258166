//! `metaclient`: the old API.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::{LogLevel, TrustedProxies, accept_python_logging};
use crate::decode::Cursor;
use crate::pattern::Pattern;
use crate::template::{self, TemplateError};

/// The `metaclient` section. The last two fields are additions to the original.
#[derive(Debug, Clone)]
pub struct Metaclient {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Base URL of the web API, as written, without `/api/v1`; [`Metaclient::DEFAULT_DEST`] if it is absent.
    pub dest: Option<String>,
    /// How much is logged; `None` leaves it to the command line.
    pub loglevel: Option<LogLevel>,
    /// API keys, each with its tenant's name.
    pub usermap: Vec<(SecretString, String)>,
    /// The files that contain these keys.
    pub usermap_files: Vec<PathBuf>,
    /// Maps requests to pools; the first entry that matches is used.
    pub poolmap: Vec<PoolMap>,
    /// Template of the host name in replies; `hostname` is the real name.
    pub mangle_hostname: Option<String>,
    /// Whether the old API refuses to start if other users can read a file with its keys.
    pub strict_permissions: bool,
    /// Proxies whose statements about a client's address are trusted, as in `app`.
    pub trusted_proxies: TrustedProxies,
}

/// One entry of `poolmap`.
#[derive(Debug, Clone)]
pub struct PoolMap {
    /// Template of the pool's name, with `ver`, `arch` and `flavor`.
    pub pool: String,
    /// Which versions; any if absent.
    pub ver: Option<Selector>,
    /// Which architectures; any if absent.
    pub arch: Option<Selector>,
    /// Which flavors; any if absent.
    pub flavor: Option<Selector>,
}

/// The values of one kind that an entry matches.
#[derive(Debug, Clone)]
pub enum Selector {
    /// This value.
    Text(String),
    /// The values that a regular expression of Python's matches: text between `^` and `$`.
    Pattern(Pattern),
}

/// A request of a client of the old API.
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
    /// The default of `dest`.
    pub const DEFAULT_DEST: &'static str = "http://127.0.0.1:8080";

    /// Returns the tenant that an API key belongs to.
    pub fn user_of(&self, key: &str) -> Option<&str> {
        self.usermap
            .iter()
            .find(|(known, _)| known.expose_secret() == key)
            .map(|(_, user)| user.as_str())
    }

    /// Returns the name of the pool for a request, from the first entry that matches.
    ///
    /// # Errors
    /// That entry's template cannot be rendered with the request's values.
    pub fn pool_for(&self, request: &PoolRequest<'_>) -> Result<Option<String>, TemplateError> {
        let entry = self.poolmap.iter().find(|entry| entry.selects(request));
        entry
            .map(|entry| template::render(&entry.pool, &request.values()))
            .transpose()
    }

    /// Returns a node's host name as replies show it. A missing name stays missing unless there is a template.
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

    pub(crate) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        cursor.section(|fields| {
            let host = fields.read_or("host", "127.0.0.1".into(), Cursor::owned_text);
            let port = fields.read_or("port", 9090, Cursor::port);
            let dest = fields.read("dest", Cursor::http_url);
            let loglevel = fields.read("loglevel", LogLevel::decode);
            fields.read("logging", accept_python_logging);
            let mangle_hostname = fields.read("mangle_hostname", Cursor::template);
            let strict_permissions = fields.read_or("strict-permissions", false, Cursor::boolean);
            let proxies = fields.read("trusted-proxies", TrustedProxies::decode);
            let usermap = fields.read_required("usermap", decode_usermap);
            let poolmap = fields.read_required("poolmap", |at| {
                Some(at.items()?.iter().filter_map(PoolMap::decode).collect())
            });
            let (usermap, usermap_files) = usermap?;
            Some(Self {
                host,
                port,
                dest,
                loglevel,
                usermap,
                usermap_files,
                poolmap: poolmap?,
                mangle_hostname,
                strict_permissions,
                trusted_proxies: proxies.unwrap_or_default(),
            })
        })
    }
}

impl PoolRequest<'_> {
    /// Returns the variables for a template. Values that the request lacks are not defined.
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
    /// Whether this entry matches the request. An entry without a pool's name matches no request.
    pub fn selects(&self, request: &PoolRequest<'_>) -> bool {
        let matches = |selector: &Option<Selector>, value: Option<&str>| match (selector, value) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(selector), Some(value)) => selector.matches(value),
        };
        !self.pool.is_empty()
            && matches(&self.ver, request.ver)
            && matches(&self.arch, request.arch)
            && matches(&self.flavor, request.flavor)
    }

    fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        cursor.section(|fields| {
            let pool = fields.read_required("pool", Cursor::template);
            Some(Self {
                ver: fields.read("ver", Selector::decode),
                arch: fields.read("arch", Selector::decode),
                flavor: fields.read("flavor", Selector::decode),
                pool: pool?,
            })
        })
    }
}

impl Selector {
    /// Empty text matches any value, as does a missing selector.
    fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        let text = cursor.text()?;
        if text.is_empty() {
            return None;
        }
        if !(text.starts_with('^') && text.ends_with('$')) {
            return Some(Self::Text(text.to_owned()));
        }
        match Pattern::parse(text) {
            Ok(pattern) => Some(Self::Pattern(pattern)),
            Err(cause) => cursor.refuse(format!(
                "{text:?} is not a supported regular expression: {cause}"
            )),
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

fn decode_usermap(cursor: &Cursor<'_>) -> Option<(Users, Vec<PathBuf>)> {
    let (mut users, mut files) = (Vec::new(), Vec::new());
    for (index, (key, mut user)) in cursor.entries()?.into_iter().enumerate() {
        // Messages must not contain the keys, which are secrets.
        user.path = format!("{}[{index}]", cursor.path);
        let file = PathBuf::from(&*user.mark.file);
        if !files.contains(&file) {
            files.push(file);
        }
        if let Some(name) = user.owned_text() {
            users.push((SecretString::from(key), name));
        }
    }
    Some((users, files))
}
