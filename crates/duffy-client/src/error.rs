//! Why a call has no good reply.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use duffy_api::Detail;
use serde_json::Value;
use ureq::{Error, Timeout};

/// The result of a call.
pub(crate) type Result<T> = std::result::Result<T, ClientError>;

/// Why a call has no good reply. Each message is one line that says where it failed and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL is invalid.
    #[error(
        "{url:?} is not a base URL of a Duffy API: {cause}; an example is http://duffy.example.org:8080/api/v1"
    )]
    Url {
        /// The URL, without user name and password.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A proxy variable of the environment is invalid.
    #[error(
        "the environment variable {variable} is not a valid URL of an HTTP proxy: set it to http://HOST:PORT, or unset it"
    )]
    Proxy {
        /// Name of the variable.
        variable: String,
    },
    /// The file of trusted authorities cannot be used.
    #[error(
        "{}: {cause}: set a PEM file of trusted certificate authorities, or none", path.display()
    )]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The value of a header is invalid.
    #[error("the {what} cannot be sent in an HTTP header: remove control characters from it")]
    Header {
        /// What the value is.
        what: &'static str,
    },
    /// There is no connection. No request was sent.
    #[error("can't connect to {url}: {cause}: {remedy}")]
    Connect {
        /// URL of the request.
        url: String,
        /// The error of the system.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// TLS failed. No request was sent.
    #[error("TLS with {url} failed: {cause}: {remedy}")]
    Tls {
        /// URL of the request.
        url: String,
        /// What is wrong.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The call took longer than [`crate::Settings::timeout`].
    #[error("{url} did not answer within {} s: {}", after.as_secs_f64(), unknown_outcome(*write))]
    Timeout {
        /// URL of the request.
        url: String,
        /// The limit.
        after: Duration,
        /// Whether the call changes something.
        write: bool,
    },
    /// The connection ended before the reply did.
    #[error("the connection to {url} ended before the reply ({cause}): {}", unknown_outcome(*write))]
    Broken {
        /// URL of the request.
        url: String,
        /// The error of the system.
        cause: String,
        /// Whether the call changes something.
        write: bool,
    },
    /// The peer does not speak HTTP.
    #[error(
        "{url} answers with something that is not HTTP ({cause}): check the URL's scheme and port"
    )]
    NotHttp {
        /// URL of the request.
        url: String,
        /// What is wrong with the reply.
        cause: String,
    },
    /// The server, or a proxy before it, redirects.
    #[error(
        "{url} redirects to {location} (status {status}), which is not followed: set the base URL to the new location"
    )]
    Redirected {
        /// URL of the request.
        url: String,
        /// HTTP status, 300 to 399.
        status: u16,
        /// The `Location` header.
        location: String,
    },
    /// The API refused the request.
    #[error("refused (status {}): {}", .0.status, .0.detail)]
    Refused(Box<Refusal>),
    /// The body is not JSON: a proxy's page, say.
    #[error(
        "{url} answers with status {status} and not with JSON ({start}): check that the base URL leads to Duffy's API, not to another site or a proxy"
    )]
    NotJson {
        /// URL of the request.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the body, on one line.
        start: String,
    },
    /// The body is JSON, but not a reply of Duffy's API.
    #[error(
        "{url} answers with status {status} and JSON that is not a reply of Duffy's API ({cause}): check the base URL"
    )]
    Unexpected {
        /// URL of the request.
        url: String,
        /// HTTP status.
        status: u16,
        /// What is missing or invalid.
        cause: String,
    },
    /// The body is longer than any reply of the API.
    #[error(
        "{url} answers with more than {limit} bytes: check that the base URL leads to Duffy's API"
    )]
    TooLarge {
        /// URL of the request.
        url: String,
        /// The limit in bytes.
        limit: u64,
    },
}

/// The API's refusal of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// HTTP status, 400 and above.
    pub status: u16,
    /// The API's reason.
    pub detail: Detail,
    /// The body.
    pub body: Value,
    /// The id of the request in the server's log.
    pub request_id: Option<String>,
}

fn unknown_outcome(write: bool) -> &'static str {
    if write {
        "the request may have been carried out, list the sessions before you repeat it"
    } else {
        "try again, or look at the server's log"
    }
}

/// The call that an error is about.
pub(crate) struct Call<'a> {
    pub(crate) url: &'a str,
    pub(crate) write: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) connect_timeout: Duration,
}

const CHECK_ADDRESS: &str = "check that Duffy's API runs there, and host and port of the URL";
const CHECK_CERTIFICATE: &str =
    "for a certificate of your own authority, set SSL_CERT_FILE to the authority's PEM file";

impl Call<'_> {
    /// Turns an error of the HTTP library into one that says what to do.
    pub(crate) fn explain(&self, error: ureq::Error) -> ClientError {
        let url = self.url.to_owned();
        match error {
            Error::Io(error) => self.explain_io(&error),
            Error::HostNotFound => self.no_connection("the host name is unknown"),
            Error::ConnectionFailed => self.no_connection("no address of it can be reached"),
            Error::ConnectProxyFailed(cause) => ClientError::Connect {
                url,
                cause: format!("the proxy refuses ({cause})"),
                remedy: "check HTTP_PROXY and HTTPS_PROXY, or name the host in NO_PROXY",
            },
            Error::Timeout(Timeout::Global | Timeout::PerCall) => ClientError::Timeout {
                url,
                after: self.timeout.unwrap_or_default(),
                write: self.write,
            },
            Error::Timeout(_) => {
                let seconds = self.connect_timeout.as_secs_f64();
                self.no_connection(&format!("no answer within {seconds} s"))
            }
            Error::BodyExceedsLimit(limit) => ClientError::TooLarge { url, limit },
            Error::LargeResponseHeader(_, limit) => ClientError::TooLarge {
                url,
                limit: limit as u64,
            },
            Error::Rustls(error) => self.no_tls(&error.to_string()),
            Error::Tls(cause) => self.no_tls(cause),
            Error::Pem(cause) => self.no_tls(&format!("{cause:?}")),
            Error::TlsRequired => self.no_tls("no TLS in this connection"),
            Error::Protocol(error) => ClientError::NotHttp {
                url,
                cause: error.to_string(),
            },
            Error::BadUri(cause) => ClientError::Url { url, cause },
            Error::Http(error) => ClientError::Url {
                url,
                cause: error.to_string(),
            },
            other => self.broken(other.to_string()),
        }
    }

    fn explain_io(&self, error: &std::io::Error) -> ClientError {
        let cause = error.to_string();
        match error.kind() {
            ErrorKind::ConnectionRefused => self.no_connection("connection refused"),
            ErrorKind::HostUnreachable => self.no_connection("no route to the host"),
            ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                self.no_connection("the network cannot be reached")
            }
            ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied => self.no_connection(&cause),
            ErrorKind::InvalidData if self.url.starts_with("https:") => self.no_tls(&cause),
            _ => self.broken(cause),
        }
    }

    fn broken(&self, cause: String) -> ClientError {
        ClientError::Broken {
            url: self.url.to_owned(),
            cause,
            write: self.write,
        }
    }

    fn no_connection(&self, cause: &str) -> ClientError {
        ClientError::Connect {
            url: self.url.to_owned(),
            cause: cause.to_owned(),
            remedy: CHECK_ADDRESS,
        }
    }

    fn no_tls(&self, cause: &str) -> ClientError {
        let remedy = if cause.contains("InvalidContentType") {
            "the server seems to speak plain HTTP, use http:// in the URL"
        } else {
            CHECK_CERTIFICATE
        };
        ClientError::Tls {
            url: self.url.to_owned(),
            cause: cause.to_owned(),
            remedy,
        }
    }
}
