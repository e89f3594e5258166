//! Opens the port to listen on, and reports in one line why that fails.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, lookup_host};

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host's name is unknown.
    #[error("{host} is no address of this machine: {source}; set `host` to one, 127.0.0.1 say")]
    UnknownHost {
        /// The configured host.
        host: String,
        /// The error of the resolver.
        source: io::Error,
    },
    /// The port is in use.
    #[error("{address} is taken by another program; stop it, or set another `port`")]
    Taken {
        /// Host and port.
        address: String,
    },
    /// The address belongs to another machine.
    #[error("{address} is no address of this machine; set `host` to one, 127.0.0.1 say")]
    NotLocal {
        /// Host and port.
        address: String,
    },
    /// The port needs a privilege.
    #[error("listening on {address} is not permitted; set a `port` of 1024 or above")]
    Forbidden {
        /// Host and port.
        address: String,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// Host and port.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
}

/// Listens on a port of a host: a name, an IPv4 address, or an IPv6 address with or without brackets.
/// If a name has several addresses, the first one that works is used.
pub async fn bind(host: &str, port: u16) -> Result<TcpListener, BindError> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let unknown = |source| BindError::UnknownHost {
        host: host.to_owned(),
        source,
    };
    let addresses = lookup_host((bare, port)).await.map_err(unknown)?;
    let mut first_error = None;
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                first_error.get_or_insert(refused(address, error));
            }
        }
    }
    Err(first_error.unwrap_or_else(|| unknown(io::ErrorKind::AddrNotAvailable.into())))
}

fn refused(address: SocketAddr, source: io::Error) -> BindError {
    let address = address.to_string();
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { address },
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { address },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { address },
        _ => BindError::Other { address, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_addresses_are_understood() {
        for host in ["127.0.0.1", "localhost", "0.0.0.0"] {
            let listener = bind(host, 0).await.unwrap();
            assert_ne!(listener.local_addr().unwrap().port(), 0, "{host}");
        }
        // A machine without IPv6 says so; it is not taken for a name.
        for host in ["::1", "[::1]"] {
            match bind(host, 0).await {
                Ok(listener) => assert!(listener.local_addr().unwrap().is_ipv6()),
                Err(error) => assert!(!matches!(error, BindError::UnknownHost { .. }), "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_said_to_be_taken() {
        let holder = bind("127.0.0.1", 0).await.unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = bind("127.0.0.1", port).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("127.0.0.1:{port} is taken by another program; stop it, or set another `port`")
        );
    }

    #[tokio::test]
    async fn foreign_and_senseless_hosts_are_named() {
        let error = bind("192.0.2.1", 0).await.unwrap_err();
        assert!(matches!(error, BindError::NotLocal { .. }), "{error}");
        for host in ["", "no such host", "300.1.1.1"] {
            let error = bind(host, 0).await.unwrap_err();
            assert!(
                matches!(error, BindError::UnknownHost { .. }),
                "{host:?}: {error}"
            );
        }
    }
}
