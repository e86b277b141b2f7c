//! Recorded flows that baseline policies would cut if they were made: those that passed, pass by the policies that are
//! there, and would not any more.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::wanted::Wanted;
use crate::netpol::replay::{Change, Observations, Replay, Row};
use crate::netpol::{NamespaceName, Object, Snapshot};

/// What baselines would cut of recorded flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// By the namespace whose baseline does; a flow that two would cut is in both.
    pub namespaces: BTreeMap<NamespaceName, Cut>,
    /// How many recorded flows have an end that cannot be known.
    pub unknown: u64,
}

/// What one baseline would cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// How many flows.
    pub flows: u64,
    /// How many connections they are: from where to where, at which port.
    pub connections: usize,
    /// The most frequent of them, at most 200.
    pub rows: Vec<Row>,
}

/// How many connections are kept of a namespace.
pub(super) const MOST: usize = 200;

/// What the policies would cut once all of them are made; `cluster` as for [`Replay::of`].
pub fn observed<'w>(
    made: impl IntoIterator<Item = &'w Wanted>,
    observations: &Observations,
    snapshot: &Snapshot,
    cluster: &[IpNet],
) -> Observed {
    // Each end of a flow is held by the policies of its own namespace alone, so one replay answers for all of them.
    let mut after = snapshot.clone();
    let mut namespaces: BTreeMap<String, NamespaceName> = BTreeMap::new();
    for Wanted { policy, .. } in made {
        namespaces.insert(policy.reference().to_string(), policy.namespace.clone());
        after.insert(Object::NetworkPolicy(policy.clone()));
    }
    let before = Replay::of(observations, snapshot, cluster);
    let mut observed = Observed {
        unknown: before.unknown_flows(),
        ..Observed::default()
    };
    if namespaces.is_empty() {
        return observed;
    }
    let after = Replay::of(observations, &after, cluster);
    for row in after.beyond(&before, Change::NewlyDenied) {
        let policies = row.because.iter().flat_map(|because| &because.policies);
        let mut whose: Vec<&NamespaceName> = policies
            .filter_map(|policy| namespaces.get(policy))
            .collect();
        whose.sort_unstable();
        whose.dedup();
        for namespace in whose {
            let cut = observed.namespaces.entry(namespace.clone()).or_default();
            cut.add(row.clone());
        }
    }
    for cut in observed.namespaces.values_mut() {
        // A stable sort: those that are as frequent stay in the order of their ends.
        cut.rows.sort_by_key(|row| std::cmp::Reverse(row.flows));
        cut.rows.truncate(MOST);
    }
    observed
}

impl Cut {
    fn add(&mut self, row: Row) {
        self.flows = self.flows.saturating_add(row.flows);
        self.connections = self.connections.saturating_add(1);
        self.rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::guard::baseline::wanted;
    use crate::guard::guardrail::GuardrailSpec;
    use crate::guard::testing::{Cluster, guardrail, namespace, policy};
    use crate::netpol::replay::{Action, Actor};
    use crate::netpol::testing::{actor, observe};

    fn pod(namespace: &str, app: &str) -> Actor {
        actor(&format!("{namespace}/{app}"), Some(&[("app", app)]))
    }

    /// What the built-in allows with a default-deny would cut in some namespaces, in one line each.
    fn cut(objects: &[Value], namespaces: &[&str], recorded: &Observations) -> Vec<String> {
        let spec: GuardrailSpec = serde_json::from_value(json!({"baseline": {}})).expect("a spec");
        let guardrail = guardrail("test", &spec);
        let snapshot = Cluster::of(objects).snapshot;
        let made: Vec<Wanted> = namespaces
            .iter()
            .flat_map(|name| wanted(&(*name).into(), &[&guardrail]))
            .collect();
        let observed = observed(&made, recorded, &snapshot, &[]);
        let lines = observed.namespaces.iter().flat_map(|(name, cut)| {
            cut.rows.iter().map(move |row| {
                format!(
                    "{name} ({} in {}): {} -> {} {}: {}",
                    cut.flows, cut.connections, row.from, row.to, row.port, row.flows
                )
            })
        });
        lines.collect()
    }

    #[test]
    fn each_baseline_answers_for_its_own_end_and_allows_are_not_cut() {
        let objects = [
            namespace("shop"),
            namespace("data"),
            namespace("kube-system"),
        ];
        let dns = actor("kube-system/dns", Some(&[("k8s-app", "kube-dns")]));
        let recorded = observe(&[
            (
                pod("shop", "web"),
                pod("data", "db"),
                5432,
                Action::Allowed,
                7,
            ),
            (
                pod("shop", "web"),
                pod("shop", "api"),
                80,
                Action::Allowed,
                9,
            ),
            (pod("shop", "web"), dns, 53, Action::Allowed, 100),
        ]);
        assert_eq!(
            cut(&objects, &["shop", "data"], &recorded),
            [
                "data (7 in 1): shop/web -> data/db 5432: 7",
                "shop (16 in 2): shop/web -> shop/api 80: 9",
                "shop (16 in 2): shop/web -> data/db 5432: 7",
            ]
        );
        assert_eq!(
            cut(&objects, &["data"], &recorded),
            ["data (7 in 1): shop/web -> data/db 5432: 7"]
        );
        assert_eq!(cut(&objects, &[], &recorded), Vec::<String>::new());
    }

    #[test]
    fn what_was_denied_or_is_denied_already_is_not_cut() {
        let isolated = [
            namespace("shop"),
            policy(
                "own",
                &json!({"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Ingress"]}),
            ),
        ];
        let recorded = observe(&[
            (
                pod("shop", "web"),
                pod("shop", "api"),
                80,
                Action::Allowed,
                9,
            ),
            (
                pod("shop", "web"),
                pod("shop", "db"),
                5432,
                Action::Denied,
                3,
            ),
        ]);
        assert_eq!(cut(&isolated, &["shop"], &recorded), Vec::<String>::new());
        assert_eq!(cut(&isolated[..1], &["shop"], &recorded).len(), 1);
    }

    #[test]
    fn the_most_frequent_are_kept_and_all_are_counted() {
        let flows: Vec<_> = (1..=300_u16)
            .map(|port| {
                let (from, to) = (pod("shop", "web"), pod("shop", "api"));
                (from, to, port, Action::Allowed, u64::from(port))
            })
            .collect();
        let lines = cut(&[namespace("shop")], &["shop"], &observe(&flows));
        assert_eq!(lines.len(), MOST);
        assert_eq!(
            lines.first().map(String::as_str),
            Some("shop (45150 in 300): shop/web -> shop/api 300: 300")
        );
    }
}
