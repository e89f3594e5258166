//! Opens the port to listen on, and reports in one line why that fails.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::{TcpListener, lookup_host};

const ADVICE: &str = "set `host` to one, for example 127.0.0.1";

/// Listens on a port of a host: a name, an IPv4 address, or an IPv6 address with or without brackets. If a name has several
/// addresses, this uses the first one that works.
///
/// # Errors
/// One line that says what to change.
pub async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let unknown = |error: io::Error| {
        io::Error::other(format!(
            "{host} is not an address of this machine: {error}; {ADVICE}"
        ))
    };
    let mut first_error = None;
    for address in lookup_host((bare, port)).await.map_err(unknown)? {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                first_error.get_or_insert(refused(address, &error));
            }
        }
    }
    Err(first_error.unwrap_or_else(|| unknown(ErrorKind::AddrNotAvailable.into())))
}

fn refused(address: SocketAddr, error: &io::Error) -> io::Error {
    let message = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("{address} is taken by another program; stop it, or set another `port`")
        }
        ErrorKind::AddrNotAvailable => {
            format!("{address} is not an address of this machine; {ADVICE}")
        }
        ErrorKind::PermissionDenied => {
            format!("listening on {address} is not permitted; set a `port` of 1024 or above")
        }
        _ => format!("cannot listen on {address}: {error}"),
    };
    io::Error::new(error.kind(), message)
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
        // A machine without IPv6 says so. The address is not taken for an unknown name.
        for host in ["::1", "[::1]"] {
            match bind(host, 0).await {
                Ok(listener) => assert!(listener.local_addr().unwrap().is_ipv6()),
                Err(error) => assert_ne!(error.kind(), ErrorKind::Other, "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_reported() {
        let holder = bind("127.0.0.1", 0).await.unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = bind("127.0.0.1", port).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            format!("127.0.0.1:{port} is taken by another program; stop it, or set another `port`")
        );
    }

    #[tokio::test]
    async fn foreign_and_unknown_hosts_are_named() {
        let error = bind("192.0.2.1", 0).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.1:0 is not an address of this machine; set `host` to one, for example 127.0.0.1"
        );
        for host in ["", "no such host", "300.1.1.1"] {
            let error = bind(host, 0).await.unwrap_err().to_string();
            let is_unknown =
                error.starts_with(&format!("{host} is not an address of this machine: "));
            assert!(
                is_unknown && error.ends_with("for example 127.0.0.1"),
                "{error}"
            );
        }
    }
}
