//! Connections in few lines: what the workloads of a namespace, or all of them, have in common is told once.
//!
//! A row's destinations are put together first, then the sources of what is the same. Nothing is left out and nothing
//! is added, but for one thing: whether a workload's pods reach each other is not told of it within a group.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::netpol::reach::{Party, PortSet, Row};
use crate::netpol::{NamespaceName, WorkloadRef};

/// One end of some connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Many {
    /// Every workload that there is.
    Everyone(usize),
    /// Every workload of a namespace, two at least.
    Namespace(NamespaceName, usize),
    /// This one.
    One(Party),
}

/// Each of some ends reaches each of others at these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) from: Many,
    pub(crate) to: Many,
    pub(crate) ports: PortSet,
}

/// How many workloads there are in each namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Population {
    namespaces: BTreeMap<NamespaceName, usize>,
    all: usize,
}

/// Connections as they are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// In the order of their sources.
    pub(crate) groups: Vec<Group>,
    /// How many connections they are.
    pub(crate) connections: usize,
    /// Whether several were put together.
    pub(crate) is_grouped: bool,
}

impl Told {
    /// Each connection by itself as long as there are not more than some, put together otherwise.
    pub(crate) fn of(
        rows: impl Iterator<Item = Row>,
        most: usize,
        population: &Population,
    ) -> Self {
        let mut rows = rows;
        let mut few = Vec::new();
        let mut connections = 0_usize;
        for row in rows.by_ref() {
            connections = connections.saturating_add(row.to.len());
            few.push(row);
            if connections > most {
                break;
            }
        }
        if connections <= most {
            let each = few.into_iter().flat_map(Row::connections);
            let each = each.map(|one| Group {
                from: Many::One(one.from),
                to: Many::One(one.to),
                ports: one.ports,
            });
            return Self {
                groups: each.collect(),
                connections,
                is_grouped: false,
            };
        }
        let rest = rows.inspect(|row| connections = connections.saturating_add(row.to.len()));
        let groups = grouped(few.into_iter().chain(rest), population);
        Self {
            groups,
            connections,
            is_grouped: true,
        }
    }
}

/// All connections in groups.
fn grouped(rows: impl Iterator<Item = Row>, population: &Population) -> Vec<Group> {
    let mut sources: HashMap<(Many, PortSet), Vec<(Party, ())>> = HashMap::new();
    for row in rows {
        for (to, ports) in population.together(&row.to, workload(&row.from)) {
            let from = (row.from.clone(), ());
            sources.entry((to, ports)).or_default().push(from);
        }
    }
    let mut groups = Vec::new();
    for ((to, ports), from) in sources {
        let itself = match &to {
            Many::One(party) => workload(party),
            Many::Everyone(_) | Many::Namespace(..) => None,
        };
        for (from, ()) in population.together(&from, itself) {
            groups.push(Group {
                from,
                to: to.clone(),
                ports: ports.clone(),
            });
        }
    }
    groups.sort_unstable_by(|a, b| (&a.from, &a.to, &a.ports).cmp(&(&b.from, &b.to, &b.ports)));
    groups
}

fn workload(party: &Party) -> Option<&WorkloadRef> {
    match party {
        Party::Workload(workload) => Some(workload),
        Party::Outside(_) => None,
    }
}

impl Population {
    /// That of these workloads, each once.
    pub(crate) fn of<'a>(workloads: impl IntoIterator<Item = &'a WorkloadRef>) -> Self {
        let mut population = Self::default();
        for workload in workloads {
            let own = population.namespaces.entry(workload.namespace.clone());
            let own = own.or_default();
            *own = own.saturating_add(1);
            population.all = population.all.saturating_add(1);
        }
        population
    }

    /// How many workloads a namespace has.
    pub(crate) fn in_namespace(&self, namespace: &NamespaceName) -> usize {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }

    /// Parties that have something, with those put together of which every one has the same. They are sorted by
    /// namespace; the workload at the other end need not be among them.
    pub(crate) fn together<V: Clone + PartialEq>(
        &self,
        parties: &[(Party, V)],
        itself: Option<&WorkloadRef>,
    ) -> Vec<(Many, V)> {
        let mut namespaces: BTreeMap<&NamespaceName, Vec<&(Party, V)>> = BTreeMap::new();
        let mut together = Vec::new();
        let mut outside = Vec::new();
        for one in parties {
            match workload(&one.0) {
                Some(workload) => namespaces.entry(&workload.namespace).or_default().push(one),
                None => outside.push((Many::One(one.0.clone()), one.1.clone())),
            }
        }
        let is_itself = |one: &&(Party, V)| workload(&one.0) == itself;
        // What every workload of a namespace has, where they all have the same.
        let common = |namespace: &NamespaceName, members: &[&(Party, V)]| -> Option<V> {
            let missing = itself.is_some_and(|itself| itself.namespace == *namespace)
                && !members.iter().any(is_itself);
            let there = self.in_namespace(namespace);
            let first = &members.first()?.1;
            let is_same = members.iter().all(|(_, value)| value == first);
            let is_whole = members.len().saturating_add(usize::from(missing)) == there;
            (is_same && is_whole).then(|| first.clone())
        };
        let mut values: Vec<Option<V>> = Vec::with_capacity(namespaces.len());
        for (namespace, members) in &namespaces {
            values.push(common(namespace, members));
        }
        let lone = itself.filter(|itself| {
            self.namespaces.get(&itself.namespace) == Some(&1)
                && !namespaces.contains_key(&itself.namespace)
        });
        let has_all =
            namespaces.len().saturating_add(usize::from(lone.is_some())) == self.namespaces.len();
        if let Some(Some(first)) = values.first()
            && has_all
            && self.all > 1
            && values.iter().all(|value| value.as_ref() == Some(first))
        {
            together.push((Many::Everyone(self.all), first.clone()));
            together.extend(outside);
            return together;
        }
        for ((namespace, members), value) in namespaces.into_iter().zip(values) {
            let there = self.in_namespace(namespace);
            match value {
                Some(value) if there > 1 && members.len() > 1 => {
                    together.push((Many::Namespace(namespace.clone(), there), value));
                }
                Some(_) | None => {
                    let each = members.into_iter();
                    together
                        .extend(each.map(|(one, value)| (Many::One(one.clone()), value.clone())));
                }
            }
        }
        together.extend(outside);
        together
    }
}

impl fmt::Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone(count) => write!(f, "every workload (all {count})"),
            Self::Namespace(namespace, count) => {
                write!(f, "every workload of {namespace} (all {count})")
            }
            Self::One(party) => party.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::netpol::reach::PortRange;
    use crate::netpol::{Protocol, WorkloadKind};

    fn workload(namespace: &str, name: &str) -> WorkloadRef {
        WorkloadRef {
            kind: WorkloadKind::Pod,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    fn port(port: u16) -> PortSet {
        let range = PortRange {
            protocol: Protocol::Tcp,
            first: port,
            last: port,
        };
        [range].into_iter().collect()
    }

    /// Six workloads, one of them alone in its namespace, and two blocks.
    fn parties() -> Vec<Party> {
        let names = ["a/1", "a/2", "a/3", "b/1", "b/2", "c/1"];
        let workloads = names.map(|name| name.split_once('/').expect("a name"));
        let workloads = workloads.map(|(namespace, name)| workload(namespace, name));
        let blocks = ["192.0.2.0/24", "::/0"].map(|block| block.parse().expect("a block"));
        let workloads = workloads.into_iter().map(Party::Workload);
        workloads.chain(blocks.map(Party::Outside)).collect()
    }

    fn population() -> Population {
        let parties = parties();
        Population::of(parties.iter().filter_map(super::workload))
    }

    /// Rows in which the ports of each pair are given; 0 is none.
    fn rows(ports: &[u16]) -> Vec<Row> {
        let parties = parties();
        let pairs = ports.chunks(parties.len()).zip(&parties);
        let rows = pairs.map(|(ports, from)| Row {
            from: from.clone(),
            to: parties
                .iter()
                .zip(ports)
                .filter(|(_, number)| **number > 0)
                .map(|(to, number)| (to.clone(), port(*number)))
                .collect(),
        });
        rows.filter(|row| !row.to.is_empty()).collect()
    }

    fn members(many: &Many) -> Vec<Party> {
        let parties = parties().into_iter();
        parties
            .filter(|party| match (many, super::workload(party)) {
                (Many::Everyone(_), workload) => workload.is_some(),
                (Many::Namespace(namespace, _), workload) => {
                    workload.is_some_and(|workload| workload.namespace == *namespace)
                }
                (Many::One(one), _) => one == party,
            })
            .collect()
    }

    fn check(ports: &[u16]) -> Result<(), TestCaseError> {
        let mut told = BTreeSet::new();
        for group in grouped(rows(ports).into_iter(), &population()) {
            for from in members(&group.from) {
                for to in members(&group.to) {
                    if from != to || group.from == group.to && matches!(group.to, Many::One(_)) {
                        let is_new = told.insert((from.clone(), to, group.ports.clone()));
                        prop_assert!(is_new, "told twice");
                    }
                }
            }
        }
        let each = rows(ports).into_iter().flat_map(Row::connections);
        let each: BTreeSet<_> = each.map(|one| (one.from, one.to, one.ports)).collect();
        let of_others = |all: BTreeSet<(Party, Party, PortSet)>| -> Vec<_> {
            all.into_iter().filter(|(from, to, _)| from != to).collect()
        };
        prop_assert_eq!(of_others(told), of_others(each));
        Ok(())
    }

    proptest! {
        #[test]
        fn groups_say_what_the_rows_say(ports in proptest::collection::vec(
            prop_oneof![6 => Just(80_u16), 1 => Just(443), 1 => Just(0)], 64)) {
            check(&ports)?;
        }

        #[test]
        fn groups_of_little_say_what_the_rows_say(ports in proptest::collection::vec(0..3_u16, 64)) {
            check(&ports)?;
        }
    }

    #[test]
    fn a_cluster_in_which_all_is_open_is_told_in_a_few_lines() {
        let groups = grouped(rows(&[80; 64]).into_iter(), &population());
        let lines = groups.iter();
        let lines: Vec<String> = lines
            .map(|group| format!("{} -> {} {}", group.from, group.to, group.ports))
            .collect();
        assert_eq!(
            lines,
            [
                "every workload (all 6) -> every workload (all 6) TCP 80",
                "every workload (all 6) -> 192.0.2.0/24 TCP 80",
                "every workload (all 6) -> ::/0 TCP 80",
                "192.0.2.0/24 -> every workload (all 6) TCP 80",
                "192.0.2.0/24 -> 192.0.2.0/24 TCP 80",
                "192.0.2.0/24 -> ::/0 TCP 80",
                "::/0 -> every workload (all 6) TCP 80",
                "::/0 -> 192.0.2.0/24 TCP 80",
                "::/0 -> ::/0 TCP 80",
            ]
        );
    }

    #[test]
    fn few_connections_are_told_one_by_one() {
        let told = |most: usize| {
            let told = Told::of(rows(&[80; 64]).into_iter(), most, &population());
            (told.groups.len(), told.connections, told.is_grouped)
        };
        assert_eq!(told(64), (64, 64, false));
        assert_eq!(told(63), (9, 64, true));
    }
}
