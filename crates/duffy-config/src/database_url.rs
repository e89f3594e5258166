//! Database URLs as SQLAlchemy reads them.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

/// A database that Duffy can use. Its debug form does not show the password.
#[derive(Debug, Clone)]
pub enum DatabaseUrl {
    /// A PostgreSQL server.
    Postgres(Box<PostgresUrl>),
    /// A file.
    Sqlite {
        /// The file; a relative one counts from the current directory.
        path: PathBuf,
    },
}

/// A PostgreSQL database. What is `None` is left to the client's own defaults and environment, as libpq has it.
#[derive(Debug, Clone, Default)]
pub struct PostgresUrl {
    /// Name or address, or the directory of a Unix socket when it starts with `/`.
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
    /// File with the certificates of the authorities to trust.
    pub ssl_root_cert: Option<PathBuf>,
    /// File with the client's certificate.
    pub ssl_cert: Option<PathBuf>,
    /// File with the client's private key.
    pub ssl_key: Option<PathBuf>,
    /// How connections are named in the server's views.
    pub application_name: Option<String>,
    /// How long connecting may take.
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
    /// What is wrong and what would be right. Never contains the URL, as that may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text).map(|parsed| parsed.url)
    }

    /// Whether both name the same database as the same user, whatever else they say.
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

/// A URL and what in it has no effect.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) url: DatabaseUrl,
    pub(crate) warnings: Vec<String>,
}

/// The parts of a URL, decoded where SQLAlchemy decodes them.
#[derive(Debug, Default)]
struct Parts {
    user: Option<String>,
    password: Option<String>,
    host: Option<String>,
    port: Option<String>,
    database: Option<String>,
    query: Vec<(String, String)>,
}

const EXPECTED: &str = "use postgresql://user:password@host/database or sqlite:////path/to/file";

pub(crate) fn parse(text: &str) -> Result<Parsed, String> {
    let text = text.trim();
    let Some((name, rest)) = text.split_once("://") else {
        return Err(format!("this is no database URL; {EXPECTED}"));
    };
    if name.is_empty()
        || !name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '+'))
    {
        return Err(format!("this is no database URL; {EXPECTED}"));
    }
    let parts = split(rest)?;
    let mut warnings = Vec::new();
    let dialect = name.split('+').next().unwrap_or(name).to_lowercase();
    let url = match dialect.as_str() {
        "postgresql" => postgres(parts, &mut warnings)?,
        "postgres" => {
            warnings.push("the original wants postgresql:// instead of postgres://".into());
            postgres(parts, &mut warnings)?
        }
        "sqlite" => sqlite(&parts, &mut warnings)?,
        other => {
            return Err(format!(
                "databases of the kind {other} are not supported; {EXPECTED}"
            ));
        }
    };
    Ok(Parsed { url, warnings })
}

/// Cuts what follows `://`. The password ends at the first `@`, as in SQLAlchemy, so that it can hold `/`, `?` and `#`.
fn split(rest: &str) -> Result<Parts, String> {
    let decoded = |text| Some(percent_decode_str(text).decode_utf8_lossy().into_owned());
    let mut parts = Parts::default();
    let mut rest = rest;
    let stop = rest.find([':', '/']).unwrap_or(rest.len());
    let password_end = rest[stop..]
        .starts_with(':')
        .then(|| rest[stop + 1..].find('@'))
        .flatten();
    if let Some(end) = password_end {
        parts.user = decoded(&rest[..stop]);
        parts.password = decoded(&rest[stop + 1..stop + 1 + end]);
        rest = &rest[stop + 1 + end + 1..];
    } else if let Some(at) = rest[..stop].rfind('@') {
        parts.user = decoded(&rest[..at]);
        rest = &rest[at + 1..];
    }
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed
            .split_once(']')
            .ok_or("the host's [ has no ]; write IPv6 addresses as [::1]")?;
        parts.host = Some(host.to_owned());
        rest = after;
    } else {
        let end = rest.find(['/', ':', '?']).unwrap_or(rest.len());
        parts.host = Some(rest[..end].to_owned());
        rest = &rest[end..];
    }
    if let Some(after) = rest.strip_prefix(':') {
        let end = after.find(['/', '?']).unwrap_or(after.len());
        parts.port = Some(after[..end].to_owned());
        rest = &after[end..];
    }
    if let Some(after) = rest.strip_prefix('/') {
        let end = after.find('?').unwrap_or(after.len());
        parts.database = Some(after[..end].to_owned());
        rest = &after[end..];
    }
    match rest.strip_prefix('?') {
        Some(query) => {
            let pairs = url::form_urlencoded::parse(query.as_bytes());
            parts.query = pairs
                .into_owned()
                .filter(|(_, value)| !value.is_empty())
                .collect();
        }
        None if rest.is_empty() => {}
        None => return Err(format!("this is no database URL; {EXPECTED}")),
    }
    for part in [
        &mut parts.user,
        &mut parts.password,
        &mut parts.host,
        &mut parts.port,
        &mut parts.database,
    ] {
        *part = part.take().filter(|text| !text.is_empty());
    }
    Ok(parts)
}

fn postgres(parts: Parts, warnings: &mut Vec<String>) -> Result<DatabaseUrl, String> {
    let mut url = PostgresUrl {
        host: parts.host,
        port: parts.port.as_deref().map(parse_port).transpose()?,
        user: parts.user,
        password: parts.password.map(SecretString::from),
        database: parts.database,
        ..PostgresUrl::default()
    };
    let mut seen_host = false;
    for (key, value) in parts.query {
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
                let seconds = value
                    .parse::<f64>()
                    .ok()
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                // Zero means for ever in libpq.
                url.connect_timeout =
                    Some(seconds.ok_or("connect_timeout must be a number of seconds")?)
                        .filter(|time| !time.is_zero());
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
    Ok(match text {
        "disable" | "false" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" | "true" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(
                "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full"
                    .into(),
            );
        }
    })
}

fn sqlite(parts: &Parts, warnings: &mut Vec<String>) -> Result<DatabaseUrl, String> {
    if parts.host.is_some() || parts.port.is_some() || parts.user.is_some() {
        return Err(
            "a SQLite URL has no host: write three slashes before a relative path, sqlite:///file.db, and four before an absolute one, sqlite:////path/file.db"
                .into(),
        );
    }
    let in_memory = parts
        .query
        .iter()
        .any(|(key, value)| key == "mode" && value == "memory");
    let path = match parts.database.as_deref() {
        Some(path) if path != ":memory:" && !path.starts_with("file::memory:") && !in_memory => {
            path
        }
        _ => {
            return Err(
                "a SQLite database in memory is gone with its process and cannot be shared with others; name a file: sqlite:////path/to/file"
                    .into(),
            );
        }
    };
    if path.starts_with("file:") {
        return Err(
            "SQLite's own file: names are not supported; write sqlite:////path/to/file".into(),
        );
    }
    for (key, _) in &parts.query {
        warnings.push(format!("the parameter {key} is not used"));
    }
    Ok(DatabaseUrl::Sqlite {
        path: PathBuf::from(path),
    })
}
