//! Names that mean something of their own, whatever any resolver says about them. One table each.
//!
//! No pattern of a policy matches any of these, and no query about them ever leaves.

use crate::host::Host;

/// What a name means by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    /// The host that runs the sandbox.
    HostGateway,
    /// A cloud's metadata service.
    Metadata,
    /// The sandbox itself (RFC 6761, section 6.3, and the aliases that distributions put in `/etc/hosts`).
    Loopback,
}

/// What `host` means by itself, if anything.
pub(crate) fn special(host: &Host) -> Option<Special> {
    special_str(host.as_str())
}

/// As [`special`], for a name that is known to be canonical.
pub(crate) fn special_str(name: &str) -> Option<Special> {
    if HOST_GATEWAY.contains(&name) {
        Some(Special::HostGateway)
    } else if METADATA.contains(&name) {
        Some(Special::Metadata)
    } else if LOOPBACK.contains(&name) || name.ends_with(".localhost") {
        Some(Special::Loopback)
    } else {
        None
    }
}

/// Names for the host: Docker's two, Podman's one, and Egret's own.
pub(crate) const HOST_GATEWAY: &[&str] = &[
    "host.docker.internal",
    "gateway.docker.internal",
    "host.containers.internal",
    "host.egret.internal",
];

/// Names of metadata services, from the documentation of each cloud.
pub(crate) const METADATA: &[&str] = &[
    // Google Cloud, and the short form that its resolvers' search domain completes.
    "metadata.google.internal",
    "metadata.goog",
    "metadata",
    // Amazon EC2, with and without the search domain.
    "instance-data.ec2.internal",
    "instance-data",
    // Azure.
    "metadata.azure.internal",
    "metadata.azure.com",
    // Tencent Cloud.
    "metadata.tencentyun.com",
    // Equinix Metal, under its present and former name.
    "metadata.platformequinix.com",
    "metadata.packet.net",
    // Rancher.
    "rancher-metadata",
    "rancher-metadata.rancher.internal",
];

const LOOPBACK: &[&str] = &[
    "localhost",
    "localhost.localdomain",
    "localhost4",
    "localhost4.localdomain4",
    "localhost6",
    "localhost6.localdomain6",
    "ip6-localhost",
    "ip6-loopback",
    "loopback",
];
