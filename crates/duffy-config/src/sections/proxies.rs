//! Proxies that are believed when they say for whom they ask.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::decode::{Cursor, Report};

/// The networks of proxies that are believed; by default none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Whether what has this address is believed.
    pub fn contains(&self, address: IpAddr) -> bool {
        // A socket of IPv6 shows IPv4 addresses as IPv6 ones.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let items = cursor.items(report)?;
        let network = |at: &Cursor<'_>| {
            let text = at.text(report)?;
            let network = text.parse::<IpNet>();
            let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.ok().or_else(|| {
                at.refuse(
                    report,
                    format!(
                        "must be an address or a network (10.0.0.0/8, 2001:db8::/32), not {text:?}"
                    ),
                )
            })
        };
        Some(Self(items.iter().filter_map(network).collect()))
    }
}
