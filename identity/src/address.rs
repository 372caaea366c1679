//! Where a request comes from.

use std::net::IpAddr;

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
}
