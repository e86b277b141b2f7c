//! Breadth: what a policy's rules open, held against the limits of each direction.
//!
//! Address blocks are judged each by itself and then together, over the policy's own rules and those of other
//! policies of the namespace that may select the same pods: two halves of the world are the world.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::guard::engine::Level;
use crate::guard::finding::{Finding, Fix, ObjectRef};
use crate::guard::guardrail::{BreadthLimits, BreadthSection};
use crate::guard::registry::{self, Check};
use crate::guard::review::{Review, Subject};
use crate::netpol::{
    Direction, FieldPath, NAMESPACE_NAME_LABEL, NamespaceScope, NetworkPolicy, Object, Operator,
    Peer, Peers, Requirement, Selector, Snapshot,
};

mod wide;

/// Something that is opened wider than allowed.
pub(super) struct Broad {
    pub(super) level: Level,
    pub(super) finding: Finding,
    /// The addresses, where it is about these.
    pub(super) block: Option<IpNet>,
}

/// A block of the policy and where it stands.
struct Block {
    net: IpNet,
    field: FieldPath,
}

/// Everything that a policy opens wider than allowed.
pub(super) fn policy(
    review: &Review,
    subject: &Subject,
    section: &BreadthSection,
    snapshot: &Snapshot,
) -> Vec<Broad> {
    let policy = match subject.model() {
        Some(Object::NetworkPolicy(policy)) => policy,
        Some(Object::ClusterNetworkPolicy(policy)) => {
            return wide::policy(&review.object_ref(), policy, section);
        }
        _ => return Vec::new(),
    };
    let object = review.object_ref();
    let mut findings = Vec::new();
    for (direction, limits) in [
        (Direction::Ingress, &section.ingress),
        (Direction::Egress, &section.egress),
    ] {
        let Some(limits) = limits else { continue };
        if !policy.isolates(direction) {
            continue;
        }
        peers(&object, policy, direction, limits, &mut findings);
        let own = blocks_of(policy, direction, limits);
        let with_others = |mine: &[IpNet]| with_others(policy, direction, mine, limits, snapshot);
        blocks(&object, &own, direction, limits, with_others, &mut findings);
    }
    findings
}

/// Rules without peers and peers that are all namespaces.
fn peers(
    object: &ObjectRef,
    policy: &NetworkPolicy,
    direction: Direction,
    limits: &BreadthLimits,
    findings: &mut Vec<Broad>,
) {
    let list = peer_list(direction);
    for (index, rule) in policy.rules(direction).iter().enumerate() {
        let at = rule_field(direction, index);
        match &rule.peers {
            Peers::Any if limits.any_peer => {}
            Peers::Any => {
                let message = format!(
                    "{direction} rule {index} has no `{list}`: it allows every peer, the world included"
                );
                let fix = Fix::words(format!("name the peers in `{list}`"));
                findings.push(Broad {
                    level: Level::Deny,
                    finding: Finding::of(
                        &registry::ANY_PEER,
                        object.clone(),
                        at,
                        message,
                        Some(fix),
                    ),
                    block: None,
                });
            }
            Peers::Only(_) if limits.all_namespaces => {}
            Peers::Only(peers) => {
                for (peer_index, peer) in peers.iter().enumerate() {
                    let Peer::Pods {
                        namespaces: NamespaceScope::Selected(selector),
                        pods,
                    } = peer
                    else {
                        continue;
                    };
                    if !every_namespace(selector) {
                        continue;
                    }
                    let field = at.key(list).index(peer_index).key("namespaceSelector");
                    let scope = (selector, pods);
                    findings.push(all_namespaces(object, direction, index, scope, field));
                }
            }
        }
    }
}

/// A peer that is pods of all namespaces.
fn all_namespaces(
    object: &ObjectRef,
    direction: Direction,
    rule: usize,
    (namespaces, pods): (&Selector, &Selector),
    field: FieldPath,
) -> Broad {
    let level = if leaves_out_only(pods) {
        Level::Deny
    } else {
        Level::Warn
    };
    let whom = if pods.is_everything() {
        "every pod".to_owned()
    } else {
        format!("pods labelled `{pods}`")
    };
    let requirements = namespaces.requirements();
    let left_out = requirements
        .iter()
        .flat_map(|asked| match asked.operator() {
            Operator::NotIn(names) => names.iter().map(AsRef::as_ref).collect(),
            Operator::In(_) | Operator::Exists | Operator::DoesNotExist => Vec::new(),
        });
    let left_out: Vec<&str> = left_out.collect();
    let which = if !requirements.iter().all(is_by_name) {
        format!(" that is labelled `{namespaces}`, as one without labels is")
    } else if left_out.is_empty() {
        String::new()
    } else {
        format!(" but {}", left_out.join(", "))
    };
    let message = format!("{direction} rule {rule} allows {whom} of every namespace{which}");
    let fix = Fix::words("select the namespaces that are meant, by `kubernetes.io/metadata.name`");
    let finding = Finding::of(
        &registry::ALL_NAMESPACES,
        object.clone(),
        field,
        message,
        Some(fix),
    );
    Broad {
        level,
        finding,
        block: None,
    }
}

/// Whether no namespace can fail to match, or none but those that are left out.
fn every_namespace(selector: &Selector) -> bool {
    let mut requirements = selector.requirements().iter();
    requirements.all(|requirement| match requirement.operator() {
        Operator::Exists => is_by_name(requirement),
        Operator::NotIn(_) => true,
        Operator::DoesNotExist => !is_by_name(requirement),
        Operator::In(_) => false,
    })
}

/// Whether who has none of the labels matches: to be left out takes a label.
fn leaves_out_only(selector: &Selector) -> bool {
    let mut requirements = selector.requirements().iter();
    requirements.all(|requirement| match requirement.operator() {
        Operator::NotIn(_) | Operator::DoesNotExist => true,
        Operator::In(_) | Operator::Exists => false,
    })
}

/// Whether it is about the name, which every namespace has as a label.
fn is_by_name(requirement: &Requirement) -> bool {
    requirement.key() == NAMESPACE_NAME_LABEL
}

/// Blocks that are too wide: each by itself, or neighbours that make up a wider one, which are then one finding.
fn blocks(
    object: &ObjectRef,
    own: &[Block],
    direction: Direction,
    limits: &BreadthLimits,
    with_others: impl FnOnce(&[IpNet]) -> Vec<(IpNet, String)>,
    findings: &mut Vec<Broad>,
) {
    let Some(first) = own.first() else { return };
    let mine: Vec<IpNet> = own.iter().map(|block| block.net).collect();
    let mut find = |block: IpNet, at: &Block, how: &str| {
        let (check, message) = judge(block, limits);
        let fix = Fix::words(format!(
            "name the networks that are meant, /{} or narrower",
            widest(block, limits)
        ));
        let finding = Finding::of(
            check,
            object.clone(),
            at.field.clone(),
            format!("{message}{how}"),
            Some(fix),
        );
        findings.push(Broad {
            level: Level::Deny,
            finding,
            block: Some(block),
        });
    };
    let wide = aggregate(&mine, limits);
    for &block in &wide {
        if mine.contains(&block) {
            for each in own
                .iter()
                .filter(|each| block.contains(&each.net) && too_wide(each.net, limits))
            {
                find(each.net, each, "");
            }
        } else {
            let inside = own
                .iter()
                .find(|each| block.contains(&each.net))
                .unwrap_or(first);
            find(
                block,
                inside,
                &format!(": the {direction} blocks make it up piece by piece"),
            );
        }
    }
    for (block, others) in with_others(&mine) {
        // What is wide without the others was found above.
        if wide.contains(&block) {
            continue;
        }
        let inside = own
            .iter()
            .find(|each| block.contains(&each.net))
            .unwrap_or(first);
        find(
            block,
            inside,
            &format!(
                ", together with policy {others}: the {direction} blocks make it up piece by piece"
            ),
        );
    }
}

/// Blocks that are too wide only together with those of other policies for the same pods, and the names of these.
fn with_others(
    policy: &NetworkPolicy,
    direction: Direction,
    mine: &[IpNet],
    limits: &BreadthLimits,
    snapshot: &Snapshot,
) -> Vec<(IpNet, String)> {
    let others: Vec<(&NetworkPolicy, Vec<IpNet>)> = snapshot
        .policies_in(&policy.namespace)
        .filter(|other| other.name != policy.name && !other.selector.disjoint(&policy.selector))
        .map(|other| {
            (
                other,
                blocks_of(other, direction, limits)
                    .into_iter()
                    .map(|block| block.net)
                    .collect(),
            )
        })
        .collect();
    let theirs: Vec<IpNet> = others
        .iter()
        .flat_map(|(_, blocks)| blocks)
        .copied()
        .collect();
    // What they open without this policy is theirs to answer for.
    let before = aggregate(&theirs, limits);
    let all: Vec<IpNet> = mine.iter().chain(&theirs).copied().collect();
    let wide = aggregate(&all, limits)
        .into_iter()
        .filter(|block| !before.contains(block));
    wide.map(|block| {
        let part = others
            .iter()
            .filter(|(_, blocks)| blocks.iter().any(|net| block.contains(net)));
        let names: Vec<&str> = part.map(|(other, _)| other.name.as_str()).collect();
        (block, names.join(", "))
    })
    .collect()
}

fn judge(block: IpNet, limits: &BreadthLimits) -> (&'static Check, String) {
    if block.prefix_len() == 0 {
        (
            &registry::WORLD,
            format!("opens {block}, the whole {} world", family(block)),
        )
    } else {
        (
            &registry::WIDE_BLOCK,
            format!(
                "opens {block}, wider than the /{} allowed",
                widest(block, limits)
            ),
        )
    }
}

/// The unions of neighbouring blocks that are too wide.
fn aggregate(blocks: &[IpNet], limits: &BreadthLimits) -> Vec<IpNet> {
    let v4: Vec<Ipv4Net> = blocks
        .iter()
        .filter_map(|block| {
            if let IpNet::V4(net) = block {
                Some(*net)
            } else {
                None
            }
        })
        .collect();
    let v6: Vec<Ipv6Net> = blocks
        .iter()
        .filter_map(|block| {
            if let IpNet::V6(net) = block {
                Some(*net)
            } else {
                None
            }
        })
        .collect();
    let v4 = Ipv4Net::aggregate(&v4).into_iter().map(IpNet::V4);
    let v6 = Ipv6Net::aggregate(&v6).into_iter().map(IpNet::V6);
    v4.chain(v6)
        .filter(|&block| too_wide(block, limits))
        .collect()
}

fn too_wide(block: IpNet, limits: &BreadthLimits) -> bool {
    block.prefix_len() < widest(block, limits)
        && !limits
            .allowed_blocks
            .iter()
            .any(|allowed| allowed.contains(&block))
}

/// The shortest prefix that a block of its family may have.
pub(super) fn widest(block: IpNet, limits: &BreadthLimits) -> u8 {
    match block {
        IpNet::V4(_) => limits.widest_prefix_v4,
        IpNet::V6(_) => limits.widest_prefix_v6,
    }
}

fn family(block: IpNet) -> &'static str {
    match block {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

/// The address blocks of a policy's rules, those left out that the guardrail allows.
fn blocks_of(policy: &NetworkPolicy, direction: Direction, limits: &BreadthLimits) -> Vec<Block> {
    let list = peer_list(direction);
    let mut blocks = Vec::new();
    for (index, rule) in policy.rules(direction).iter().enumerate() {
        let Peers::Only(peers) = &rule.peers else {
            continue;
        };
        for (peer_index, peer) in peers.iter().enumerate() {
            if let Peer::Block { cidr, .. } = peer
                && !limits
                    .allowed_blocks
                    .iter()
                    .any(|allowed| allowed.contains(cidr))
            {
                let field = rule_field(direction, index)
                    .key(list)
                    .index(peer_index)
                    .key("ipBlock")
                    .key("cidr");
                blocks.push(Block { net: *cidr, field });
            }
        }
    }
    blocks
}

fn rule_field(direction: Direction, index: usize) -> FieldPath {
    FieldPath::of(["spec", direction.field()]).index(index)
}

fn peer_list(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}
