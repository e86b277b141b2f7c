//! Selections that are empty: policies that select no pod, peers that mean nobody.
//!
//! That nothing is there is said only of namespaces that are known whole, or where something is there that the
//! selector nearly means, which tells a mistake from a manifest that was not given.

use ipnet::IpNet;

use super::neighbourhood::{Crowd, Neighbourhood};
use super::{Flaw, Near, Nothing, What, peers_field};
use crate::netpol::coverage::Direction;
use crate::netpol::field::FieldPath;
use crate::netpol::labels::{Labels, is_volatile};
use crate::netpol::near_miss::near_miss;
use crate::netpol::policy::{NamespaceScope, NetworkPolicy, Peer, Peers, Rule};
use crate::netpol::selector::{Operator, Requirement, Selector};
use crate::netpol::snapshot::NamespaceState;

/// A policy that selects no pod.
pub(super) fn selected(near: &Neighbourhood<'_>, policy: &NetworkPolicy) -> Option<Flaw> {
    let flaw = |why| Flaw {
        field: FieldPath::of(["spec", "podSelector"]),
        what: What::SelectsNothing(why),
    };
    if is_contradiction(&policy.selector) {
        return Some(flaw(Nothing::Contradiction));
    }
    // It is for whatever comes.
    if policy.selector.is_everything() {
        return None;
    }
    let crowd = near.crowd(&policy.namespace)?;
    empty(&[crowd], &policy.selector, crowd.is_whole).map(flaw)
}

/// The peers of a rule that mean nobody.
pub(super) fn peers(
    near: &Neighbourhood<'_>,
    policy: &NetworkPolicy,
    direction: Direction,
    index: usize,
    rule: &Rule,
) -> Vec<Flaw> {
    let Peers::Only(peers) = &rule.peers else {
        return Vec::new();
    };
    let mut flaws = Vec::new();
    for (position, peer) in peers.iter().enumerate() {
        let (why, part) = match peer {
            Peer::Block { cidr, except } => (
                leaves_nothing(cidr, except).then_some(Nothing::Excepted),
                "ipBlock",
            ),
            Peer::Pods { namespaces, pods } => {
                let why = nobody(near, policy, namespaces, pods);
                let by_namespace = matches!(why, Some(Nothing::NoNamespace { .. }))
                    || why == Some(Nothing::Contradiction) && !is_contradiction(pods)
                    // Without a podSelector every pod there is meant, and there is none.
                    || pods.is_everything();
                let has_selector = matches!(namespaces, NamespaceScope::Selected(_));
                (
                    why,
                    if by_namespace && has_selector {
                        "namespaceSelector"
                    } else {
                        "podSelector"
                    },
                )
            }
        };
        if let Some(why) = why {
            let field = peers_field(direction, index).index(position);
            flaws.push(Flaw {
                field: field.key(part),
                what: What::PeerIsNobody(why),
            });
        }
    }
    flaws
}

/// Whether these flaws are of all peers of a rule, which then means nobody.
pub(super) fn all_peers(rule: &Rule, nobody: &[Flaw]) -> bool {
    matches!(&rule.peers, Peers::Only(peers) if peers.len() == nobody.len())
}

fn nobody(
    near: &Neighbourhood<'_>,
    policy: &NetworkPolicy,
    namespaces: &NamespaceScope,
    pods: &Selector,
) -> Option<Nothing> {
    let selector = match namespaces {
        NamespaceScope::Own => None,
        NamespaceScope::Selected(selector) => Some(selector),
    };
    if is_contradiction(pods) || selector.is_some_and(is_contradiction) {
        return Some(Nothing::Contradiction);
    }
    let meant = near.meant(policy, namespaces)?;
    if meant.namespaces.is_empty() {
        let near = namespace_typo(near, selector?);
        return (meant.is_certain || near.is_some()).then_some(Nothing::NoNamespace { near });
    }
    // Of a namespace without workloads nothing is known, unless the whole cluster is.
    let mut crowds = Vec::new();
    for name in &meant.namespaces {
        match near.crowd(name) {
            Some(crowd) => crowds.push(crowd),
            None if meant.is_certain => {}
            None => return None,
        }
    }
    if pods.is_everything() && !meant.is_certain {
        return None;
    }
    // Among the pods of very many namespaces something is always nearly like it.
    let may_guess = meant.is_named;
    empty(&crowds, pods, meant.is_certain).filter(|why| {
        meant.is_certain || may_guess && matches!(why, Nothing::NoPod { near: Some(_) })
    })
}

/// Why a selector means none of some pods, as far as that can be said.
fn empty(crowds: &[&Crowd<'_>], pods: &Selector, is_certain: bool) -> Option<Nothing> {
    // What controllers set when they make pods is in no template.
    let mut asked = pods.requirements().iter();
    if asked.any(|asked| is_volatile(asked.key())) || crowds.iter().any(|crowd| crowd.has_gaps) {
        return None;
    }
    let is_held = |crowd: &&Crowd<'_>| crowd.kinds.iter().any(|kind| pods.matches(kind.labels));
    if crowds.iter().any(is_held) {
        return None;
    }
    let others = || crowds.iter().flat_map(|crowd| &crowd.others);
    let mut matching = others().filter(|pod| pods.matches(&pod.labels)).peekable();
    if matching.peek().is_some() {
        let all_on_host = matching.all(|pod| pod.host_network && !pod.is_finished());
        return (all_on_host && is_certain).then_some(Nothing::OnHost);
    }
    let there = crowds
        .iter()
        .flat_map(|crowd| crowd.kinds.iter().map(|kind| kind.labels));
    let near = typo(pods, there);
    (is_certain || near.is_some()).then_some(Nothing::NoPod { near })
}

/// Whether the excepted blocks are together the whole block.
fn leaves_nothing(cidr: &IpNet, except: &[IpNet]) -> bool {
    IpNet::aggregate(&except.to_vec())
        .iter()
        .any(|block| block.contains(cidr))
}

pub(super) fn is_contradiction(selector: &Selector) -> bool {
    selector.disjoint(&Selector::everything())
}

/// The namespace that a selector nearly means.
fn namespace_typo(near: &Neighbourhood<'_>, selector: &Selector) -> Option<Near> {
    if !near.is_all() {
        return None;
    }
    let known = near.snapshot().namespaces();
    let known = known.filter(|namespace| namespace.pods().next().is_some());
    typo(selector, known.map(NamespaceState::labels))
}

/// The one requirement of a selector that the labels of something that is there nearly meet, all others being met.
pub(super) fn typo<'l>(
    selector: &Selector,
    there: impl Iterator<Item = &'l Labels>,
) -> Option<Near> {
    there
        .filter_map(|labels| {
            let mut unmet = selector
                .requirements()
                .iter()
                .filter(|requirement| !requirement.matches(labels));
            let (asked, None) = (unmet.next()?, unmet.next()) else {
                return None;
            };
            let (key, value) = nearly(asked, labels)?;
            Some(Near {
                asked: asked.clone(),
                there: (key.to_owned(), value.to_owned()),
            })
        })
        .min()
}

/// The label that nearly meets a requirement.
fn nearly<'l>(asked: &Requirement, labels: &'l Labels) -> Option<(&'l str, &'l str)> {
    let Operator::In(values) = asked.operator() else {
        return None;
    };
    let asked_key = asked.key();
    let is_asked = |value: &str| values.iter().any(|asked| **asked == *value);
    if let Some(own) = labels.iter().find(|(key, _)| *key == asked_key) {
        let is_near = values.iter().any(|asked| is_typo(asked, own.1));
        return is_near.then_some(own);
    }
    labels
        .iter()
        .find(|(key, value)| is_asked(value) && is_typo(asked_key, key))
}

/// Whether a word is probably meant to be another one. Names that differ in one letter that stands alone (`team-a`,
/// `team-b`) are different names, as those that differ in digits are.
pub(super) fn is_typo(word: &str, other: &str) -> bool {
    let parts = |text: &str| -> Vec<String> {
        text.split(['-', '_', '.', '/'])
            .map(str::to_owned)
            .collect()
    };
    let (own, others) = (parts(word), parts(other));
    let is_series = own.len() == others.len()
        && own
            .iter()
            .zip(&others)
            .all(|(own, other)| own == other || own.len() <= 1 && other.len() <= 1);
    !is_series && near_miss(word, [other]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_series_are_no_typos_of_each_other() {
        assert!(!is_typo("team-a", "team-b"));
        assert!(!is_typo("svc-1", "svc-2"));
        assert!(is_typo("frontned", "frontend"));
        assert!(is_typo("team-pay", "team-pays"));
    }

    #[test]
    fn a_near_miss_meets_everything_else_that_is_asked_for() {
        let selector = Selector::new([
            Requirement::is("app", "frontned"),
            Requirement::is("tier", "web"),
        ]);
        let labels: [Labels; 2] = [
            [("app", "frontend"), ("tier", "db")].into(),
            [("app", "frontend"), ("tier", "web")].into(),
        ];
        assert_eq!(typo(&selector, labels[..1].iter()), None);
        let near = typo(&selector, labels.iter()).expect("a near miss");
        assert_eq!(near.there, ("app".to_owned(), "frontend".to_owned()));
    }

    #[test]
    fn a_misspelt_key_with_the_right_value_is_a_near_miss() {
        let selector = Selector::new([Requirement::is("app.kubernetes.io/nmae", "web")]);
        let labels: Labels = [("app.kubernetes.io/name", "web")].into();
        let near = typo(&selector, [&labels].into_iter()).expect("a near miss");
        assert_eq!(near.there.0, "app.kubernetes.io/name");
    }
}
