//! Where a request comes from.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of who sends these headers. Behind a proxy that is trusted it is the last entry of
/// `x-forwarded-for`, which that proxy has added: those before it are what callers say of themselves.
/// Else, and where that entry is no address, it is the peer of the connection, as far as it is known.
#[must_use]
pub fn client_address(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    trust_forwarded: bool,
) -> Option<IpAddr> {
    let forwarded = if trust_forwarded { last_forwarded(headers) } else { None };
    forwarded.or(peer).map(|address| address.to_canonical())
}

/// Over all lines of the header, which are one list.
fn last_forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let line = headers.get_all(FORWARDED_FOR).iter().next_back()?;
    // What callers say before it need not be text.
    let last = line.as_bytes().rsplit(|byte| *byte == b',').next()?;
    std::str::from_utf8(last).ok()?.trim().parse().ok()
}

/// Whose an address is, as far as it is counted how often somebody does something. Every limit that is
/// kept by address is kept by this: of IPv6 everybody has a network of addresses, at least a /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The /64 of an IPv6 address; an IPv4 address by itself, also one that is written as IPv6.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Its first address.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_last_that_a_trusted_proxy_has_seen_counts() {
        let cases: [(&[&str], &str); 10] = [
            (&[], "10.0.0.9"),
            (&["203.0.113.1"], "203.0.113.1"),
            (&["198.51.100.7, 203.0.113.1"], "203.0.113.1"),
            (&["203.0.113.1 ,\t2001:db8::1 "], "2001:db8::1"),
            (&["198.51.100.7", "192.0.2.2, 203.0.113.1"], "203.0.113.1"),
            (&["::ffff:203.0.113.1"], "203.0.113.1"),
            (&["\u{e9}, 203.0.113.1"], "203.0.113.1"),
            // No address: the proxy has written something else, or nothing.
            (&["203.0.113.1, unknown"], "10.0.0.9"),
            (&["203.0.113.1", ""], "10.0.0.9"),
            (&["203.0.113.1:4711"], "10.0.0.9"),
        ];
        for (lines, behind_proxy) in cases {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            let address = |peer: Option<&str>, trusted| {
                let peer = peer.map(|text| text.parse().unwrap());
                client_address(peer, &headers, trusted).map(|address| address.to_string())
            };
            let proxy = Some("::ffff:10.0.0.9");
            assert_eq!(address(proxy, true).as_deref(), Some(behind_proxy), "{lines:?}");
            assert_eq!(address(proxy, false).as_deref(), Some("10.0.0.9"), "{lines:?}");
            assert_eq!(address(None, false), None, "{lines:?}");
        }
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        for (address, network) in [
            ("203.0.113.1", "203.0.113.1"),
            ("::ffff:203.0.113.1", "203.0.113.1"),
            ("2001:db8::1", "2001:db8::"),
            ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::"),
            ("2001:db8:0:1::1", "2001:db8:0:1::"),
        ] {
            assert_eq!(Network::of(address.parse().unwrap()).to_string(), network, "{address}");
        }
    }
}
