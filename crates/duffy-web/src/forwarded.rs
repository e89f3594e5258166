//! The client for which a proxy forwards a request: the headers `Forwarded` (RFC 7239) and `X-Forwarded-For`.

use std::net::{IpAddr, Ipv6Addr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// An address in a header. `None` if it is hidden, unknown, or cannot be read.
type Hop = Option<IpAddr>;

/// The client's address: the first one, from the peer back to the client, that is not trusted. The search ends at an address that
/// cannot be read.
///
/// If there are both headers and they name different clients, the client sent one of them itself, because the proxy sets the
/// other. It is unknown which one, so both are ignored.
pub fn client(headers: &HeaderMap, peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let walk = |hops: Option<Vec<Hop>>| {
        let mut address = peer;
        let mut hops = hops?.into_iter().rev();
        while is_trusted(address)
            && let Some(Some(hop)) = hops.next()
        {
            address = hop;
        }
        Some(address)
    };
    let forwarded = walk(read(headers, &FORWARDED, elements));
    match (forwarded, walk(read(headers, &X_FORWARDED_FOR, addresses))) {
        (Some(forwarded), Some(other)) if forwarded != other => peer,
        (forwarded, other) => forwarded.or(other).unwrap_or(peer),
    }
}

/// All lines of a header as one list. Each line is parsed alone, so that a quote in one line does not swallow the next.
fn read(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: impl Fn(&str) -> Vec<Hop>,
) -> Option<Vec<Hop>> {
    headers.contains_key(name).then(|| {
        let lines = headers.get_all(name).iter();
        let hops = lines.map(|line| line.to_str().map_or(vec![None], &parse));
        hops.flatten().collect()
    })
}

/// The list of `X-Forwarded-For`.
fn addresses(line: &str) -> Vec<Hop> {
    let hops = line.split(',').map(str::trim);
    hops.filter(|hop| !hop.is_empty()).map(address).collect()
}

/// The list of `Forwarded`.
fn elements(line: &str) -> Vec<Hop> {
    let elements = split_quoted(line, ',').into_iter();
    elements
        .filter(|element| element.is_none_or(|text| !text.trim().is_empty()))
        .map(|element| element.and_then(element_for))
        .collect()
}

/// The address of an element's only `for`.
fn element_for(element: &str) -> Hop {
    let mut found = None;
    for pair in split_quoted(element, ';') {
        let (name, value) = pair?.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") && found.replace(unquoted(value)?).is_some() {
            return None;
        }
    }
    address(&found?)
}

/// Splits a text at separators that are not quoted. Nothing is read after a quote in the wrong place: the last part is `None`.
fn split_quoted(text: &str, separator: char) -> Vec<Option<&str>> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    let (mut quoted, mut escaped, mut last) = (false, false, ' ');
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quoted {
            escaped = c == '\\';
            quoted = c != '"';
        } else if c == separator {
            parts.push(Some(&text[begin..at]));
            begin = at + 1;
        } else if c == '"' && last == '=' {
            quoted = true;
        } else if c == '"' || last == '"' && !matches!(c, ';' | ',' | ' ' | '\t') {
            parts.push(None);
            return parts;
        }
        last = c;
    }
    if quoted {
        parts.push(None);
    } else if begin < text.len() {
        parts.push(Some(&text[begin..]));
    }
    parts
}

fn unquoted(value: &str) -> Option<String> {
    let value = value.trim();
    let Some(quoted) = value.strip_prefix('"') else {
        return Some(value.to_owned());
    };
    let mut text = String::new();
    let mut chars = quoted.strip_suffix('"')?.chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(text)
}

/// An address with or without a port. IPv6 with a port is in brackets.
fn address(text: &str) -> Hop {
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        if !port.is_empty() && !port.starts_with(':') {
            return None;
        }
        address.parse::<Ipv6Addr>().ok()?.into()
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (address, _port) = text.split_once(':')?;
        IpAddr::V4(address.parse().ok()?)
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    /// The client's address where 10.0.0.0/8 is trusted, and fd00::/8.
    fn found(headers: &[(&str, &[u8])]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, (*value).try_into().unwrap());
        }
        let trusted = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(address) => address.octets()[0] == 0xfd,
        };
        client(&map, PEER, trusted).to_string()
    }

    #[test]
    fn the_first_untrusted_address_from_the_right_is_the_client() {
        for (list, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
            ("198.51.100.9, 192.0.2.1,10.1.1.1 , 10.2.2.2", "192.0.2.1"),
            ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, fd00::7", "192.0.2.1"),
            ("192.0.2.1,", "192.0.2.1"),
            ("", "10.0.0.1"),
            ("192.0.2.1, unknown", "10.0.0.1"),
            ("192.0.2.1, unknown, 10.2.2.2", "10.2.2.2"),
            ("192.0.2.1, \"192.0.2.2\"", "10.0.0.1"),
            ("192.0.2.256", "10.0.0.1"),
            ("[2001:db8::1]x", "10.0.0.1"),
            ("2001:db8::1]:80", "10.0.0.1"),
        ] {
            let found = found(&[("x-forwarded-for", list.as_bytes())]);
            assert_eq!(found, client, "{list}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        for (list, client) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"192.0.2.1:80\";proto=http;by=10.0.0.1", "192.0.2.1"),
            ("proto=https; for = 192.0.2.1", "192.0.2.1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=\"[2001:db8::1]:_port\"", "2001:db8::1"),
            ("for=192.0.2.1, for=10.2.2.2", "192.0.2.1"),
            ("for=\"192.0.2.\\1\"", "192.0.2.1"),
            ("for=192.0.2.1;ext=\"a,b;for=x\\\"\"", "192.0.2.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=192.0.2.1, for=unknown", "10.0.0.1"),
            ("for=192.0.2.1, for=_x, for=10.2.2.2", "10.2.2.2"),
            ("proto=https", "10.0.0.1"),
            ("for=192.0.2.1;for=192.0.2.2", "10.0.0.1"),
            ("for", "10.0.0.1"),
            ("for=\"", "10.0.0.1"),
            ("for=192.0.2.1, for=\"10.2.2.2", "10.0.0.1"),
            // A quote that a client begins does not swallow what the proxy adds.
            ("for=198.51.100.9;x=\", for=\"[2001:db8::1]\"", "10.0.0.1"),
            ("for=198.51.100.9;x=\", for=192.0.2.1", "10.0.0.1"),
        ] {
            assert_eq!(found(&[("forwarded", list.as_bytes())]), client, "{list}");
        }
    }

    #[test]
    fn lines_are_one_list_and_headers_must_agree() {
        let lines: [(&str, &[u8]); 2] = [
            ("x-forwarded-for", b"198.51.100.9, 192.0.2.1"),
            ("x-forwarded-for", b"10.2.2.2"),
        ];
        assert_eq!(found(&lines), "192.0.2.1");
        let quote: [(&str, &[u8]); 2] = [
            ("forwarded", b"for=198.51.100.9;x=\""),
            ("forwarded", b"for=192.0.2.1"),
        ];
        assert_eq!(found(&quote), "192.0.2.1");
        assert_eq!(
            found(&[("x-forwarded-for", b"192.0.2.1, \xff")]),
            "10.0.0.1"
        );
        let mut both: [(&str, &[u8]); 2] = [
            ("forwarded", b"for=192.0.2.1"),
            ("x-forwarded-for", b"192.0.2.1, 10.2.2.2"),
        ];
        assert_eq!(found(&both), "192.0.2.1");
        both[0].1 = b"for=198.51.100.9";
        assert_eq!(found(&both), "10.0.0.1");
    }

    #[test]
    fn untrusted_peers_are_not_believed() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, "192.0.2.1".try_into().unwrap());
        assert_eq!(client(&headers, PEER, |_| false), PEER);
    }
}
