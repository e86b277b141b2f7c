//! What our rules say of a packet, by the prefix that they send with it.

use crate::agent::flows::Verdict;
use crate::netpol::Direction;

/// Why a packet to a port of VXLAN is dropped.
pub(super) const CRAFTED: &str =
    "a VXLAN packet of a pod to a node, which would be taken for the overlay's own";

/// Why a frame that is neither IP nor ARP is dropped.
pub(super) const UNASKED: &str =
    "a frame that is neither IP nor ARP, or has the tag of a VLAN: no policy would be asked of it";

/// Why what only routers say is dropped.
pub(super) const ROUTING: &str = "a router advertisement or a redirect that a pod sent, by which it would get what is for others";

/// Why what has an address of the link is dropped.
pub(super) const LINK: &str =
    "a packet to another pod by an address of the link, of which no policy is asked";

/// What a rule says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) verdict: Verdict,
    pub(super) direction: Direction,
    /// Why, where it is not for policies.
    pub(super) because: Option<Because>,
}

/// Why a packet is dropped whatever policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Because {
    /// It is to a port of VXLAN of a node.
    Crafted,
    /// Its sender is not the pod that it comes from.
    Spoofed,
    /// Its frame is neither IP nor ARP, or has the tag of a VLAN.
    Unasked,
    /// It says who routes.
    Routing,
    /// It goes to another pod by an address of the link.
    Link,
}

/// What a prefix of ours means.
pub(super) fn meaning(prefix: &str) -> Option<Meaning> {
    let (verdict, direction, because) = match prefix.strip_prefix("ringfence ")? {
        "denied ingress" => (Verdict::Denied, Direction::Ingress, None),
        "denied egress" => (Verdict::Denied, Direction::Egress, None),
        "crafted egress" => (Verdict::Denied, Direction::Egress, Some(Because::Crafted)),
        "spoofed egress" => (Verdict::Denied, Direction::Egress, Some(Because::Spoofed)),
        "unasked egress" => (Verdict::Denied, Direction::Egress, Some(Because::Unasked)),
        "routing egress" => (Verdict::Denied, Direction::Egress, Some(Because::Routing)),
        "link egress" => (Verdict::Denied, Direction::Egress, Some(Because::Link)),
        "allowed" => (Verdict::Allowed, Direction::Ingress, None),
        "would deny ingress" => (Verdict::WouldDeny, Direction::Ingress, None),
        "would deny egress" => (Verdict::WouldDeny, Direction::Egress, None),
        "would allow ingress" => (Verdict::WouldAllow, Direction::Ingress, None),
        "would allow egress" => (Verdict::WouldAllow, Direction::Egress, None),
        _ => return None,
    };
    Some(Meaning {
        verdict,
        direction,
        because,
    })
}
