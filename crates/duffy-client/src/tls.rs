//! The authorities that check a server's certificate.

use std::path::Path;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::{ClientError, Result};

/// Trusts the authorities in a PEM file, or without a file those that browsers trust.
pub(crate) fn config(ca_file: Option<&Path>) -> Result<TlsConfig> {
    let Some(path) = ca_file else {
        return Ok(TlsConfig::default());
    };
    let refuse = |cause: String| ClientError::CaFile {
        path: path.to_owned(),
        cause,
    };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        let item = item.map_err(|error| refuse(error.to_string()))?;
        if let PemItem::Certificate(certificate) = item {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(refuse("it contains no certificate in PEM form".to_owned()));
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::from(certificates))
        .build())
}
