//! Deno's permissions: an inner layer, not the sandbox. User code may read its own artifacts,
//! write its own temporary directory, see its own environment and reach public addresses.

use std::net::IpAddr;
use std::sync::Arc;

use cloudserve_protocol::egress::EgressRule;
use deno_runtime::deno_permissions::{
    Permissions, PermissionsContainer, PermissionsOptions, RuntimePermissionDescriptorParser,
};
use ipnet::IpNet;
use sys_traits::impls::RealSys;

/// Addresses that are not the public internet, for platforms on which the supervisor cannot decide
/// about connections. Checked against resolved addresses too. Deno's rules take no IPv6 subnets,
/// so of those only the host itself is listed; mapped IPv4 addresses are compared as IPv4.
const DENIED_NETS: [&str; 14] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "[::]",
    "[::1]",
];

/// What common packages ask for without meaning harm.
const ALLOWED_SYS: [&str; 16] = [
    "hostname",
    "osRelease",
    "osUptime",
    "loadavg",
    "systemMemoryInfo",
    "uid",
    "gid",
    "cpus",
    "homedir",
    "umask",
    "userInfo",
    "networkInterfaces",
    "statfs",
    "getPriority",
    "getegid",
    // Certificates that everybody knows.
    "ca",
];

#[derive(Debug, thiserror::Error)]
#[error("the permissions of an assignment are not valid: {0}")]
pub(crate) struct PermissionsError(String);

/// The ranges that stay closed: those in which the operator has opened nothing. Deno's rules have
/// no exceptions.
fn denied(open: &[EgressRule]) -> Vec<String> {
    let is_closed = |text: &&&str| {
        let bare = text.trim_matches(['[', ']']);
        let net = bare.parse::<IpNet>().or_else(|_| bare.parse::<IpAddr>().map(IpNet::from));
        !net.is_ok_and(|net| open.iter().any(|rule| rule.overlaps(&net)))
    };
    DENIED_NETS.iter().filter(is_closed).map(|net| (*net).to_owned()).collect()
}

/// What an isolate without a function may do: nothing.
pub(crate) fn none() -> PermissionsContainer {
    PermissionsContainer::new(parser(), Permissions::none_without_prompt())
}

fn parser() -> Arc<RuntimePermissionDescriptorParser<RealSys>> {
    Arc::new(RuntimePermissionDescriptorParser::new(RealSys))
}

/// What user code may do, given the directories of its assignment. Addresses are denied here only when
/// nobody else decides about them: `open` then says which are not.
pub(crate) fn permissions(
    readable: &[&str],
    writable: &[&str],
    open: Option<&[EgressRule]>,
) -> Result<PermissionsContainer, PermissionsError> {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let parser = parser();
    let options = PermissionsOptions {
        allow_read: Some([owned(readable), owned(writable)].concat()),
        // Everything else is not there, as programs expect that look whether something is.
        ignore_read: Some(vec![]),
        allow_write: Some(owned(writable)),
        allow_env: Some(vec![]),
        allow_net: Some(vec![]),
        deny_net: open.map(denied),
        allow_sys: Some(owned(&ALLOWED_SYS)),
        prompt: false,
        ..PermissionsOptions::default()
    };
    let permissions = Permissions::from_options(&*parser, &options)
        .map_err(|error| PermissionsError(error.to_string()))?;
    Ok(PermissionsContainer::new(parser, permissions))
}
