//! What can go wrong between a call and its reply.

use std::path::PathBuf;
use std::time::Duration;

use duffy_api::Detail;
use serde_json::Value;

/// Why a call got no good reply. Each message is one line that says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL cannot be one.
    #[error(
        "{url:?} is no base URL of a Duffy API: {cause}; it looks like http://duffy.example.org:8080/api/v1"
    )]
    Url {
        /// The URL as it was given, without user name and password.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A proxy variable of the environment makes no sense.
    #[error(
        "the environment variable {variable} holds no usable URL of an HTTP proxy: set it to http://HOST:PORT, or unset it"
    )]
    Proxy {
        /// Name of the variable.
        variable: String,
    },
    /// The file of trusted authorities cannot be used.
    #[error(
        "{}: {cause}: name a PEM file of trusted certificate authorities, or none", path.display()
    )]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A header that the caller chose cannot be sent.
    #[error("the {what} cannot be sent in an HTTP header: remove control characters from it")]
    Header {
        /// What it is.
        what: &'static str,
    },
    /// No connection came about, so nothing was asked.
    #[error("can't connect to {url}: {cause}: {remedy}")]
    Connect {
        /// Where to.
        url: String,
        /// What the system says.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// TLS could not be agreed on, so nothing was asked.
    #[error("can't talk TLS with {url}: {cause}: {remedy}")]
    Tls {
        /// Where to.
        url: String,
        /// What is wrong.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The whole call took longer than [`crate::Settings::timeout`].
    #[error("{url} did not answer within {} s: {}", after.as_secs_f64(), unknown_outcome(*write))]
    Timeout {
        /// What was asked.
        url: String,
        /// The limit.
        after: Duration,
        /// Whether the call was to change something.
        write: bool,
    },
    /// The connection ended in the middle.
    #[error("the connection to {url} broke off before the reply was there ({cause}): {}", unknown_outcome(*write))]
    Broken {
        /// What was asked.
        url: String,
        /// What the system says.
        cause: String,
        /// Whether the call was to change something.
        write: bool,
    },
    /// Something answers there, but not in HTTP.
    #[error(
        "{url} answers with something that is not HTTP ({cause}): check the URL's scheme and port"
    )]
    NotHttp {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        cause: String,
    },
    /// The server (or what stands before it) sends elsewhere.
    #[error(
        "{url} redirects to {location} (status {status}), which is not followed: set the base URL to the final place"
    )]
    Redirected {
        /// What was asked.
        url: String,
        /// HTTP status, 300 to 399.
        status: u16,
        /// The `Location` header.
        location: String,
    },
    /// The API refused the request.
    #[error("refused (status {}): {}", .0.status, .0.detail)]
    Refused(Box<Refusal>),
    /// The body is no JSON: a proxy's page, say.
    #[error(
        "{url} answers with status {status} and no JSON ({start}): check that the base URL leads to Duffy's API, not to another site or a proxy"
    )]
    NotJson {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the body, on one line.
        start: String,
    },
    /// The body is JSON, but not what Duffy's API sends.
    #[error(
        "{url} answers with status {status} and JSON that is no reply of Duffy's API ({cause}): check the base URL"
    )]
    Unexpected {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// What is missing or odd.
        cause: String,
    },
    /// The body is longer than any reply of the API.
    #[error(
        "{url} answers with more than {limit} bytes: check that the base URL leads to Duffy's API"
    )]
    TooLarge {
        /// What was asked.
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
    /// The whole body, as the server sent it.
    pub body: Value,
    /// The id by which the server's log knows the request.
    pub request_id: Option<String>,
}

fn unknown_outcome(write: bool) -> &'static str {
    if write {
        "the request may have been carried out, list the sessions before you repeat it"
    } else {
        "try again, or look at the server's log"
    }
}

/// What a failed call was about.
pub(crate) struct Call<'a> {
    pub(crate) url: &'a str,
    pub(crate) write: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) connect_timeout: Duration,
}

const CHECK_ADDRESS: &str = "check that Duffy's API runs there, and host and port of the URL";
const CHECK_CERTIFICATE: &str =
    "for a certificate of your own authority, name the authority's PEM file in SSL_CERT_FILE";

impl Call<'_> {
    /// Turns the HTTP library's error into one that a person can act on.
    pub(crate) fn explain(&self, error: ureq::Error) -> ClientError {
        let url = self.url.to_owned();
        match error {
            ureq::Error::Io(error) => self.explain_io(&error),
            ureq::Error::HostNotFound => self.no_connection("the host name is unknown"),
            ureq::Error::ConnectionFailed => self.no_connection("no address of it can be reached"),
            ureq::Error::ConnectProxyFailed(cause) => ClientError::Connect {
                url,
                cause: format!("the proxy refuses ({cause})"),
                remedy: "check HTTP_PROXY and HTTPS_PROXY, or name the host in NO_PROXY",
            },
            ureq::Error::Timeout(ureq::Timeout::Global | ureq::Timeout::PerCall) => {
                ClientError::Timeout {
                    url,
                    after: self.timeout.unwrap_or_default(),
                    write: self.write,
                }
            }
            ureq::Error::Timeout(_) => self.no_connection(&format!(
                "no answer within {} s",
                self.connect_timeout.as_secs_f64()
            )),
            ureq::Error::BodyExceedsLimit(limit) => ClientError::TooLarge { url, limit },
            ureq::Error::LargeResponseHeader(_, limit) => ClientError::TooLarge {
                url,
                limit: limit as u64,
            },
            ureq::Error::Rustls(error) => self.no_tls(&error.to_string()),
            ureq::Error::Tls(cause) => self.no_tls(cause),
            ureq::Error::Pem(cause) => self.no_tls(&format!("{cause:?}")),
            ureq::Error::TlsRequired => self.no_tls("no TLS in this connection"),
            ureq::Error::Protocol(error) => ClientError::NotHttp {
                url,
                cause: error.to_string(),
            },
            ureq::Error::BadUri(cause) => ClientError::Url { url, cause },
            ureq::Error::Http(error) => ClientError::Url {
                url,
                cause: error.to_string(),
            },
            other => ClientError::Broken {
                url,
                cause: other.to_string(),
                write: self.write,
            },
        }
    }

    fn explain_io(&self, error: &std::io::Error) -> ClientError {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => self.no_connection("connection refused"),
            ErrorKind::HostUnreachable => self.no_connection("no route to the host"),
            ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                self.no_connection("the network cannot be reached")
            }
            ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied => {
                self.no_connection(&error.to_string())
            }
            ErrorKind::InvalidData if self.url.starts_with("https:") => {
                self.no_tls(&error.to_string())
            }
            _ => ClientError::Broken {
                url: self.url.to_owned(),
                cause: error.to_string(),
                write: self.write,
            },
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
