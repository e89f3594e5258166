//! Proxies whose statements about a client's address are trusted.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::decode::Cursor;

/// The networks of trusted proxies; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Whether a proxy with this address is trusted.
    pub fn contains(&self, address: IpAddr) -> bool {
        // An IPv6 socket shows IPv4 addresses as IPv6 addresses.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    pub(crate) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        let network = |at: &Cursor<'_>| {
            let text = at.text()?;
            let network = text.parse::<IpNet>();
            let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.ok().or_else(|| {
                at.refuse(format!(
                    "must be an address or a network (10.0.0.0/8, 2001:db8::/32), not {text:?}"
                ))
            })
        };
        Some(Self(cursor.items()?.iter().filter_map(network).collect()))
    }
}
