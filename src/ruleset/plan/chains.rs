//! The chains of local pods and the sets that these ask: made with the first address that uses one, and kept for a while after the
//! last. Pods come back, of a job that runs each minute as of a rollout, and then their chains and the many addresses in their sets
//! are there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Plan;
use super::following::Following;
use crate::netpol::Family;
use crate::ruleset::compile::Compiled;
use crate::ruleset::draft::Draft;
use crate::ruleset::table::{ChainName, Element, Ruleset, SetKind, SetName};
use crate::ruleset::terms::PeerKey;
use crate::ruleset::transaction::{Change, Transaction};

/// The chains of pods with equal policies.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) compiled: Arc<Compiled>,
    users: usize,
}

/// A set that stays as it is.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) kind: SetKind,
    pub(super) elements: BTreeSet<Element>,
    users: usize,
}

/// The chains that no address uses any more or yet, from the one that was left first.
#[derive(Clone, Debug, Default)]
pub(super) struct Idle {
    chains: VecDeque<ChainName>,
    /// How many of them were idle when they were looked at last.
    long: usize,
}

/// Most chains that are kept for pods that may come back.
const MOST_CHAINS: usize = 64;
/// Most elements of the sets that only these ask.
const MOST_ELEMENTS: usize = 1 << 16;

// === impl Shared ===

impl Shared {
    pub(super) fn new(compiled: Arc<Compiled>) -> Self {
        Self { compiled, users: 0 }
    }

    fn sets(&self) -> impl Iterator<Item = &SetName> {
        let peers = self.compiled.peers.keys();
        peers.chain(self.compiled.fixed.keys())
    }
}

// === impl Idle ===

impl Idle {
    /// For how many more there is room.
    pub(super) fn room(&self) -> usize {
        MOST_CHAINS.saturating_sub(self.chains.len())
    }

    /// A chain is used; whether it was there, idle.
    fn take(&mut self, chain: &ChainName) -> bool {
        let Some(at) = self.chains.iter().position(|idle| idle == chain) else {
            return false;
        };
        self.chains.remove(at);
        if at < self.long {
            self.long = self.long.saturating_sub(1);
        }
        true
    }

    fn first(&mut self) -> Option<ChainName> {
        self.long = self.long.saturating_sub(1);
        self.chains.pop_front()
    }
}

// === impl Plan ===

impl Plan {
    /// Takes away what no pod has used since this was asked the last time.
    pub fn drop_idle(&mut self) -> Transaction {
        let mut draft = Draft::default();
        for _ in 0..self.idle.long {
            let first = self.idle.first();
            self.drop_chain(first, &mut draft);
        }
        self.idle.long = self.idle.chains.len();
        draft.finish()
    }

    /// Of the whole table, what pods use that are there.
    #[must_use]
    pub fn without_idle(&self, mut whole: Ruleset) -> Ruleset {
        let shared = self.chains.values();
        let (idle, used): (Vec<_>, Vec<_>) = shared.partition(|shared| shared.users == 0);
        let used: BTreeSet<&SetName> = used.into_iter().flat_map(Shared::sets).collect();
        for shared in idle {
            for (name, _) in &shared.compiled.chains {
                whole.chains.remove(name);
            }
            for set in shared.sets().filter(|set| !used.contains(set)) {
                whole.sets.remove(set);
            }
        }
        whole
    }

    /// One more address each uses chains of its family; the first one has a chain made, with the sets that it asks.
    pub(super) fn use_chains(&mut self, used: &[(&ChainName, Family)], draft: &mut Draft) {
        self.make_sets(used, draft);
        for (chain, _) in used {
            self.use_chain(chain, draft);
        }
    }

    /// Makes the sets of peers that chains ask and that are not there.
    fn make_sets(&mut self, used: &[(&ChainName, Family)], draft: &mut Draft) {
        let mut missing: BTreeMap<&SetName, (PeerKey, Family)> = BTreeMap::new();
        for (chain, family) in used.iter().copied() {
            let first = self.chains.get(chain).filter(|shared| shared.users == 0);
            for (name, key) in first.into_iter().flat_map(|shared| &shared.compiled.peers) {
                if !self.peers.contains_key(name) {
                    missing.entry(name).or_insert_with(|| (key.clone(), family));
                }
            }
        }
        let (names, keys): (Vec<SetName>, Vec<(PeerKey, Family)>) = missing
            .into_iter()
            .map(|(name, key)| (name.clone(), key))
            .unzip();
        for (name, made) in names.into_iter().zip(Following::all(keys, &self.snapshot)) {
            draft.new_sets.push(Change::AddSet(name.clone(), made.kind));
            draft.come(&name, made.kind, made.elements.iter().cloned());
            self.peers.insert(name, made);
        }
    }

    fn use_chain(&mut self, chain: &ChainName, draft: &mut Draft) {
        let Some(shared) = self.chains.get_mut(chain) else {
            return;
        };
        shared.users = shared.users.saturating_add(1);
        if shared.users > 1 {
            return;
        }
        for set in &shared.compiled.denying {
            let chains = self.denying.entry(set.clone()).or_default();
            *chains = chains.saturating_add(1);
        }
        if self.idle.take(chain) {
            return;
        }
        for name in shared.compiled.peers.keys() {
            if let Some(following) = self.peers.get_mut(name) {
                following.users = following.users.saturating_add(1);
            }
        }
        for (name, (kind, elements)) in &shared.compiled.fixed {
            let fixed = self.fixed.entry(name.clone()).or_insert_with(|| {
                draft.new_sets.push(Change::AddSet(name.clone(), *kind));
                draft.come(name, *kind, elements.iter().cloned());
                Fixed {
                    kind: *kind,
                    elements: elements.clone(),
                    users: 0,
                }
            });
            fixed.users = fixed.users.saturating_add(1);
        }
        for (name, rules) in &shared.compiled.chains {
            draft.new_chains.push(Change::AddChain(name.clone(), None));
            if !rules.is_empty() {
                draft
                    .rules
                    .push(Change::AddRules(name.clone(), rules.clone()));
            }
        }
    }

    /// One address less uses a chain; with the last one it is idle, and the longest idle ones go where there are too many. Those that
    /// are too much by themselves go at once, and leave the others.
    pub(super) fn leave_chain(&mut self, chain: &ChainName, draft: &mut Draft) {
        if self.has_left(chain) {
            self.idle.chains.push_back(chain.clone());
            self.bound_idle(draft);
        }
    }

    /// The same for a chain that was made for an address to come: it goes before those that were used lately.
    pub(super) fn set_aside(&mut self, chain: &ChainName, draft: &mut Draft) {
        if self.has_left(chain) {
            self.idle.chains.insert(self.idle.long, chain.clone());
            self.bound_idle(draft);
        }
    }

    /// One address less uses a chain; whether it was the last.
    fn has_left(&mut self, chain: &ChainName) -> bool {
        let Some(shared) = self.chains.get_mut(chain) else {
            return false;
        };
        if !last(&mut shared.users) {
            return false;
        }
        for set in &shared.compiled.denying {
            if self.denying.get_mut(set).is_some_and(last) {
                self.denying.remove(set);
            }
        }
        true
    }

    fn bound_idle(&mut self, draft: &mut Draft) {
        if self.idle_elements() > MOST_ELEMENTS {
            for chain in self.too_large() {
                self.idle.take(&chain);
                self.drop_chain(Some(chain), draft);
            }
        }
        while self.idle.chains.len() > MOST_CHAINS || self.idle_elements() > MOST_ELEMENTS {
            let first = self.idle.first();
            self.drop_chain(first, draft);
        }
    }

    /// How many elements there would be less without the idle chains.
    fn idle_elements(&self) -> usize {
        self.idle_sets().into_values().sum()
    }

    /// The idle chains that ask more than may be kept, alone or with each other.
    fn too_large(&self) -> Vec<ChainName> {
        let lengths = self.idle_sets();
        let is_too_large = |chain: &&ChainName| {
            let sets = self.chains.get(*chain).into_iter().flat_map(Shared::sets);
            let lengths = sets.filter_map(|set| lengths.get(set));
            lengths.sum::<usize>() > MOST_ELEMENTS
        };
        let idle = self.idle.chains.iter();
        idle.filter(is_too_large).cloned().collect()
    }

    /// The sets that idle chains ask and no others, with the numbers of their elements.
    fn idle_sets(&self) -> BTreeMap<&SetName, usize> {
        let idle = self.idle.chains.iter();
        let idle = idle.filter_map(|chain| self.chains.get(chain));
        let mut asked: BTreeMap<&SetName, usize> = BTreeMap::new();
        for set in idle.flat_map(Shared::sets) {
            let times = asked.entry(set).or_default();
            *times = times.saturating_add(1);
        }
        let lengths = asked.into_iter().filter_map(|(set, times)| {
            let peers = self.peers.get(set).map(|it| (it.users, &it.elements));
            let fixed = self.fixed.get(set).map(|it| (it.users, &it.elements));
            let (_, elements) = peers.or(fixed).filter(|(users, _)| *users == times)?;
            Some((set, elements.len()))
        });
        lengths.collect()
    }

    /// A chain goes, and the sets that only it asked.
    fn drop_chain(&mut self, chain: Option<ChainName>, draft: &mut Draft) {
        let Some(Shared { compiled, .. }) = chain.and_then(|chain| self.chains.remove(&chain))
        else {
            return;
        };
        for (name, _) in &compiled.chains {
            draft.flushed.push(Change::FlushChain(name.clone()));
            draft.old_chains.push(Change::DeleteChain(name.clone()));
        }
        for name in compiled.peers.keys() {
            let following = self.peers.get_mut(name);
            if following.is_some_and(|following| last(&mut following.users)) {
                self.peers.remove(name);
                draft.forget(name);
            }
        }
        for name in compiled.fixed.keys() {
            let fixed = self.fixed.get_mut(name);
            if fixed.is_some_and(|fixed| last(&mut fixed.users)) {
                self.fixed.remove(name);
                draft.forget(name);
            }
        }
    }
}

/// Takes one user away; whether it was the last.
fn last(users: &mut usize) -> bool {
    *users = users.saturating_sub(1);
    *users == 0
}
