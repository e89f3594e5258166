//! Database URLs as SQLAlchemy reads them.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use fancy_regex::{Captures, Regex};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

/// A database that Duffy can use. Its debug form does not show the password.
#[derive(Debug, Clone)]
pub enum DatabaseUrl {
    /// A PostgreSQL server.
    Postgres(Box<PostgresUrl>),
    /// A file.
    Sqlite {
        /// The file; relative to the current directory.
        path: PathBuf,
    },
}

/// A PostgreSQL database. For a field that is `None`, the client uses its own defaults and environment, as libpq does.
#[derive(Debug, Clone, Default)]
pub struct PostgresUrl {
    /// Name or address, or the directory of a Unix socket if it starts with `/`.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// User.
    pub user: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
    /// Name of the database.
    pub database: Option<String>,
    /// Whether and how TLS is used.
    pub ssl_mode: Option<SslMode>,
    /// File with the certificates of the trusted authorities.
    pub ssl_root_cert: Option<PathBuf>,
    /// File with the client's certificate.
    pub ssl_cert: Option<PathBuf>,
    /// File with the client's private key.
    pub ssl_key: Option<PathBuf>,
    /// Name of the connections in the server's views.
    pub application_name: Option<String>,
    /// Timeout for connecting.
    pub connect_timeout: Option<Duration>,
    /// Command line options for the server's session.
    pub options: Option<String>,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the names are PostgreSQL's and are explained there"
)]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl DatabaseUrl {
    /// Parses a URL as SQLAlchemy does.
    ///
    /// # Errors
    /// What is wrong and how to fix it. Never contains the URL, which may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text).map(|(url, _)| url)
    }

    /// Whether both name the same database and user. Other parameters may differ.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sqlite { path }, Self::Sqlite { path: other }) => path == other,
            (Self::Postgres(one), Self::Postgres(two)) => {
                let password = |url: &PostgresUrl| {
                    url.password
                        .as_ref()
                        .map(|text| text.expose_secret().to_owned())
                };
                one.host == two.host
                    && one.port.unwrap_or(5432) == two.port.unwrap_or(5432)
                    && one.user == two.user
                    && one.database == two.database
                    && password(one) == password(two)
            }
            _ => false,
        }
    }
}

type Parts<'t> = Captures<'t, str>;

const EXPECTED: &str = "use postgresql://user:password@host/database or sqlite:////path/to/file";

/// The parts of a URL as SQLAlchemy separates them: the password ends at the first `@`, so that it can contain `/`, `?`
/// and `#`.
static URL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let user = "(?>(?:(?<user>[^:/]*)(?::(?<password>[^@]*))?@)?)";
    let host = r"(?:\[(?<ipv6>[^\]]*)\]|(?<host>[^\[/:?][^/:?]*))?(?::(?<port>[^/?]*))?";
    let rest = r"(?:/(?<database>[^?]*))?(?:\?(?<query>.*))?";
    Regex::new(&format!(r"(?s)\A(?<name>[\w+]+)://{user}{host}{rest}\z")).ok()
});

/// Parses a URL. Returns warnings about parts of it that have no effect.
pub(crate) fn parse(text: &str) -> Result<(DatabaseUrl, Vec<String>), String> {
    let text = text.trim();
    let Some(parts) = URL.as_ref().and_then(|url| url.captures(text).ok()?) else {
        let opened = ["://[", "@["]
            .iter()
            .find_map(|start| text.split_once(start));
        return Err(if opened.is_some_and(|(_, host)| !host.contains(']')) {
            "the host's [ has no matching ]; write IPv6 addresses as [::1]".into()
        } else {
            format!("this is not a database URL; {EXPECTED}")
        });
    };
    let mut warnings = Vec::new();
    let name = parts.name("name").map_or("", |name| name.as_str());
    let dialect = name.split('+').next().unwrap_or(name).to_lowercase();
    let url = match dialect.as_str() {
        "postgresql" => postgres(&parts, &mut warnings)?,
        "postgres" => {
            warnings.push("the original requires postgresql:// instead of postgres://".into());
            postgres(&parts, &mut warnings)?
        }
        "sqlite" => sqlite(&parts, &mut warnings)?,
        other => {
            return Err(format!(
                "databases of the kind {other} are not supported; {EXPECTED}"
            ));
        }
    };
    Ok((url, warnings))
}

/// Returns a part of the URL; an empty one counts as absent.
fn part<'t>(parts: &Parts<'t>, name: &str) -> Option<&'t str> {
    let part = parts.name(name)?.as_str();
    (!part.is_empty()).then_some(part)
}

fn query(parts: &Parts<'_>) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(part(parts, "query").unwrap_or("").as_bytes());
    let pairs = pairs.into_owned();
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

fn postgres(parts: &Parts<'_>, warnings: &mut Vec<String>) -> Result<DatabaseUrl, String> {
    let owned = |name| part(parts, name).map(ToOwned::to_owned);
    let decoded = |name| {
        let part = part(parts, name)?;
        Some(percent_decode_str(part).decode_utf8_lossy().into_owned())
    };
    let mut url = PostgresUrl {
        host: owned("ipv6").or_else(|| owned("host")),
        port: part(parts, "port").map(parse_port).transpose()?,
        user: decoded("user"),
        password: decoded("password").map(SecretString::from),
        database: owned("database"),
        ..PostgresUrl::default()
    };
    let mut seen_host = false;
    for (key, value) in query(parts) {
        match key.as_str() {
            "host" => {
                if seen_host || value.contains(',') {
                    return Err("several hosts are not supported; name one".into());
                }
                seen_host = true;
                // SQLAlchemy allows host:port here.
                match value.rsplit_once(':') {
                    Some((host, port)) if !value.starts_with('/') && !host.contains(':') => {
                        url.host = Some(host.to_owned());
                        url.port = Some(parse_port(port)?);
                    }
                    _ => url.host = Some(value),
                }
            }
            "port" => url.port = Some(parse_port(&value)?),
            "user" => url.user = Some(value),
            "password" => url.password = Some(SecretString::from(value)),
            "dbname" | "database" => url.database = Some(value),
            "sslmode" | "ssl" => url.ssl_mode = Some(parse_ssl_mode(&value)?),
            "sslrootcert" => url.ssl_root_cert = Some(value.into()),
            "sslcert" => url.ssl_cert = Some(value.into()),
            "sslkey" => url.ssl_key = Some(value.into()),
            "application_name" => url.application_name = Some(value),
            "options" => url.options = Some(value),
            "connect_timeout" | "timeout" => {
                let seconds = value.parse::<f64>().ok();
                let timeout = seconds
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .ok_or("connect_timeout must be a number of seconds")?;
                // Zero means no timeout in libpq.
                url.connect_timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
            }
            _ => warnings.push(format!("the parameter {key} is not used")),
        }
    }
    Ok(DatabaseUrl::Postgres(Box::new(url)))
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        "the port must be a number from 1 to 65535; a colon or slash in the password is written as %3A or %2F".into()
    })
}

fn parse_ssl_mode(text: &str) -> Result<SslMode, String> {
    match text {
        "disable" | "false" => Ok(SslMode::Disable),
        "allow" => Ok(SslMode::Allow),
        "prefer" => Ok(SslMode::Prefer),
        "require" | "true" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => Err(
            "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full".into(),
        ),
    }
}

fn sqlite(parts: &Parts<'_>, warnings: &mut Vec<String>) -> Result<DatabaseUrl, String> {
    let server = ["ipv6", "host", "port", "user"];
    if server.iter().any(|name| part(parts, name).is_some()) {
        return Err(
            "a SQLite URL has no host: write three slashes before a relative path, sqlite:///file.db, and four before an absolute one, sqlite:////path/file.db"
                .into(),
        );
    }
    let query = query(parts);
    let path = part(parts, "database").unwrap_or(":memory:");
    if path == ":memory:"
        || path.starts_with("file::memory:")
        || query.contains(&("mode".into(), "memory".into()))
    {
        return Err(
            "a SQLite database in memory ends with its process and cannot be shared with others; name a file: sqlite:////path/to/file"
                .into(),
        );
    }
    if path.starts_with("file:") {
        return Err(
            "SQLite's own file: names are not supported; write sqlite:////path/to/file".into(),
        );
    }
    let unused = query.iter().map(|(key, _)| key);
    warnings.extend(unused.map(|key| format!("the parameter {key} is not used")));
    Ok(DatabaseUrl::Sqlite { path: path.into() })
}
