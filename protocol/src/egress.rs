//! Where functions may connect to: public addresses, and what the operator opens besides.
//!
//! Decided on the address a socket is about to be connected to, never on a name. Forms in which an
//! IPv6 address carries an IPv4 one are judged by the address they carry.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Ports of mail submission: a platform that sends spam is soon refused everywhere.
const MAIL_PORTS: [u16; 3] = [25, 465, 587];

/// What of IPv4 is not the public internet, and 168.63.129.16: Azure's machines ask there for what is
/// theirs alone.
const CLOSED_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The part of IPv6 that is handed out to the public internet, RFC 4291.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What of it is something else: Teredo, ORCHID, documentation.
const CLOSED_V6: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0), 28),
    (Ipv6Addr::new(0x2001, 0x20, 0, 0, 0, 0, 0, 0), 28),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// The IPv4 address that an address stands for: mapped, compatible, NAT64 and 6to4 forms.
fn carried(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let of = |high: u16, low: u16| {
        IpAddr::V4(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => of(high, low),
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => of(high, low),
        _ => ip,
    }
}

fn is_public(ip: IpAddr) -> bool {
    match carried(ip) {
        IpAddr::V4(ip) => {
            !CLOSED_V4.iter().any(|(net, len)| Ipv4Net::new_assert(*net, *len).contains(&ip))
        }
        IpAddr::V6(ip) => {
            let within =
                |(net, len): &(Ipv6Addr, u8)| Ipv6Net::new_assert(*net, *len).contains(&ip);
            within(&GLOBAL_V6) && !CLOSED_V6.iter().any(within)
        }
    }
}

/// An address range, and a port if only one is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EgressRule {
    net: IpNet,
    port: Option<u16>,
}

/// A text is not `CIDR[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `CIDR` or `CIDR:port`; an IPv6 range with a port is `[CIDR]:port`")]
pub struct EgressRuleError(String);

impl EgressRule {
    /// Whether it opens any of these addresses.
    #[must_use]
    pub fn overlaps(&self, net: &IpNet) -> bool {
        self.net.contains(net) || net.contains(&self.net)
    }

    fn covers(&self, ip: IpAddr, port: u16) -> bool {
        self.port.is_none_or(|only| only == port)
            && (self.net.contains(&ip) || self.net.contains(&carried(ip)))
    }
}

impl FromStr for EgressRule {
    type Err = EgressRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || EgressRuleError(text.to_owned());
        let (net, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (net, rest) = rest.split_once(']').ok_or_else(error)?;
                (net, rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
            }
            // More than one colon: IPv6 without a port.
            None if text.matches(':').count() == 1 => {
                text.split_once(':').map(|(net, port)| (net, Some(port))).ok_or_else(error)?
            }
            None => (text, None),
        };
        let net = net
            .parse::<IpNet>()
            .or_else(|_| net.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| error())?;
        let port = port.map(str::parse).transpose().map_err(|_| error())?;
        Ok(Self { net, port })
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.net, self.port) {
            (net, None) => write!(f, "{net}"),
            (IpNet::V4(net), Some(port)) => write!(f, "{net}:{port}"),
            (IpNet::V6(net), Some(port)) => write!(f, "[{net}]:{port}"),
        }
    }
}

impl From<EgressRule> for String {
    fn from(rule: EgressRule) -> Self {
        rule.to_string()
    }
}

impl TryFrom<String> for EgressRule {
    type Error = EgressRuleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Why a function may not connect somewhere. The message is fit for the function's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EgressRefused {
    /// The address is not of the public internet.
    #[error("{0} is not a public address")]
    NotPublic(IpAddr),
    /// The address is one of the platform's own.
    #[error("{0} is an address of the platform")]
    Own(IpAddr),
    /// The port is one that mail is sent through.
    #[error("port {0} is for sending mail")]
    Mail(u16),
}

/// Where functions may connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Open in any case.
    pub allow: Vec<EgressRule>,
    /// Name servers: functions may ask them, wherever they are.
    pub resolvers: Vec<IpAddr>,
    /// The platform's own addresses, public ones among them.
    pub own: Vec<IpAddr>,
}

const DNS_PORT: u16 = 53;

impl EgressPolicy {
    /// Whether a function may connect or send to this address.
    pub fn check(&self, to: SocketAddr) -> Result<(), EgressRefused> {
        let (ip, port) = (to.ip(), to.port());
        let is_resolver = port == DNS_PORT && self.resolvers.contains(&carried(ip));
        if is_resolver || self.allow.iter().any(|rule| rule.covers(ip, port)) {
            return Ok(());
        }
        if !is_public(ip) {
            return Err(EgressRefused::NotPublic(ip));
        }
        if self.own.contains(&carried(ip)) {
            return Err(EgressRefused::Own(ip));
        }
        if MAIL_PORTS.contains(&port) {
            return Err(EgressRefused::Mail(port));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_open(policy: &EgressPolicy, to: &str) -> bool {
        policy.check(to.parse().unwrap()).is_ok()
    }

    #[test]
    fn only_the_public_internet_is_open() {
        let policy = EgressPolicy::default();
        for open in [
            "1.1.1.1:443",
            "8.8.8.8:53",
            "168.63.129.17:80",
            "[2606:4700::1111]:443",
            "[64:ff9b::101:101]:80",
        ] {
            assert!(is_open(&policy, open), "{open}");
        }
        for closed in [
            "127.0.0.1:80",
            "127.255.255.254:80",
            "0.0.0.0:80",
            "10.1.2.3:80",
            "100.64.0.1:80",
            "100.127.255.255:80",
            "168.63.129.16:80",
            "[::ffff:168.63.129.16]:32526",
            "169.254.169.254:80",
            "172.31.0.1:80",
            "192.168.1.1:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[::]:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:0:127.0.0.1]:80",
            "[::127.0.0.1]:80",
            "[64:ff9b::7f00:1]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[64:ff9b:1::1]:80",
            "[2002:7f00:1::]:80",
            "[2001:0:1::1]:80",
            "[2001:db8::1]:80",
            "[fc00::1]:80",
            "[fd00:ec2::254]:80",
            "[fe80::1]:80",
            "[ff02::1]:80",
            "1.1.1.1:25",
            "[2606:4700::1111]:587",
        ] {
            assert!(!is_open(&policy, closed), "{closed}");
        }
    }

    #[test]
    fn the_operator_opens_what_is_needed_and_no_more() {
        let rules = ["127.0.0.1:5432", "10.0.0.0/8", "[fd00::/8]:443", "fe80::1", "1.2.3.4:25"];
        let allow = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let policy = EgressPolicy {
            allow,
            resolvers: vec!["10.9.9.9".parse().unwrap(), "127.0.0.53".parse().unwrap()],
            own: vec!["5.6.7.8".parse().unwrap()],
        };
        for open in [
            "127.0.0.1:5432",
            "[::ffff:127.0.0.1]:5432",
            "10.200.0.1:1",
            "[fd12::1]:443",
            "[fe80::1]:9",
            "1.2.3.4:25",
            "127.0.0.53:53",
        ] {
            assert!(is_open(&policy, open), "{open}");
        }
        for closed in [
            "127.0.0.1:5433",
            "127.0.0.2:5432",
            "[fd12::1]:80",
            "127.0.0.53:80",
            "5.6.7.8:443",
            "[::ffff:5.6.7.8]:443",
        ] {
            assert!(!is_open(&policy, closed), "{closed}");
        }
    }

    #[test]
    fn rules_are_shown_as_they_are_read() {
        for text in ["127.0.0.1/32:80", "10.0.0.0/8", "[fd00::/8]:443", "fd00::/8"] {
            assert_eq!(text.parse::<EgressRule>().unwrap().to_string(), text);
        }
        for text in ["", "localhost", "10.0.0.0/33", "10.0.0.1:", "10.0.0.1:x", "[::1]80", "[::1"] {
            assert!(text.parse::<EgressRule>().is_err(), "{text}");
        }
    }
}
