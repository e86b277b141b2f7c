//! The table in the kernel, and what is done where it is not the wanted one.
//!
//! A change is applied; where the kernel refuses it the old rules stand, and the whole table is made anew in one transaction. The
//! same is done when somebody else has touched it. Connections that were cut stay so through all of that.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rustix::io::Errno;

use crate::agent::nft::{self, ApplyError, Counted, Monitor, ReadError, Socket};
use crate::netpol::Family;
use crate::ruleset::{
    Change, CounterName, Element, Interface, Plan, Ruleset, SetKind, SetName, Transaction, Tuple,
    back_set, cut_set, sources_set,
};
use crate::telemetry::agent::{AgentMetrics, Rebuild};

/// Our table in the kernel of this node.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: Socket,
    metrics: AgentMetrics,
    /// The kernel may hold something else than what was wanted last.
    is_doubtful: bool,
    /// The kernel has no nftables for bridges.
    lacks_bridges: bool,
}

/// Whether the kernel holds what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It does.
    Same,
    /// It did not, and does now.
    Repaired,
    /// Others change nftables so fast that it cannot be said.
    Unknown,
}

/// Why the kernel does not hold what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A change was not done.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The table could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Somebody changes the table as fast as it is repaired.
    #[error("somebody else keeps changing the table")]
    Contended,
}

impl Kernel {
    /// Talks to the kernel; changes nothing yet.
    pub(super) fn open(metrics: AgentMetrics) -> Result<Self, KernelError> {
        Ok(Self {
            socket: Socket::open()?,
            metrics,
            is_doubtful: true,
            lacks_bridges: false,
        })
    }

    /// The number by which a monitor knows our own changes.
    pub(super) fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Keeps large changes of our own from a listener.
    pub(super) fn spare(&mut self, monitor: &Monitor) {
        self.socket.spare(monitor.ear());
    }

    /// Whether the kernel may hold something else than what was wanted last.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// Does a change that the plan has made. Where the kernel does not take it, makes all anew.
    pub(super) fn advance(
        &mut self,
        plan: &Plan,
        transaction: &Transaction,
    ) -> Result<(), KernelError> {
        if self.is_doubtful {
            return self.rebuild(plan, Rebuild::Refused);
        }
        let applied = if self.lacks_bridges {
            self.socket
                .apply(&Transaction::of(transaction.changes.clone()))
        } else {
            self.socket.apply(transaction)
        };
        match applied {
            Ok(()) => {
                self.metrics.transactions.inc();
                Ok(())
            }
            Err(error) => {
                self.metrics.failures.inc();
                tracing::warn!(error = %error, "a change was not taken, the table is made anew");
                self.rebuild(plan, Rebuild::Refused)
            }
        }
    }

    /// Makes the whole table anew in one transaction: packets meet the old rules or the new ones.
    pub(super) fn rebuild(&mut self, plan: &Plan, reason: Rebuild) -> Result<(), KernelError> {
        self.is_doubtful = true;
        let mut transaction = Transaction::whole(&plan.whole());
        transaction.changes.extend(self.cut(plan)?);
        if self.lacks_bridges {
            transaction.bridge.clear();
        }
        let mut applied = self.socket.apply(&transaction);
        if applied
            .as_ref()
            .is_err_and(|error| is_for_bridges(error, &transaction))
        {
            // Policies must not wait for what this kernel does not have.
            tracing::warn!(
                "this kernel has no nftables for bridges: pods on a bridge are not held to their own addresses"
            );
            self.lacks_bridges = true;
            transaction.bridge.clear();
            applied = self.socket.apply(&transaction);
        }
        applied.inspect_err(|_| {
            self.metrics.failures.inc();
        })?;
        self.is_doubtful = false;
        self.metrics.transactions.inc();
        self.metrics.rebuilt(reason);
        Ok(())
    }

    /// Reads the table back and repairs it where it is not the plan's, which is `wanted` as the kernel keeps it.
    pub(super) fn verify(&mut self, plan: &Plan, wanted: &Ruleset) -> Result<Held, KernelError> {
        match self.holds(wanted)? {
            Some(true) => return Ok(Held::Same),
            Some(false) => {}
            None => return Ok(Held::Unknown),
        }
        self.rebuild(plan, Rebuild::Touched)?;
        match self.holds(wanted)? {
            Some(true) => Ok(Held::Repaired),
            None => Ok(Held::Unknown),
            Some(false) => {
                self.is_doubtful = true;
                Err(KernelError::Contended)
            }
        }
    }

    /// Keeps the packets of connections dropped, in both directions, for the whole time from now on.
    pub(super) fn keep_cut(&mut self, plan: &Plan, tuples: &[Tuple]) -> Result<(), KernelError> {
        let changes = cut_elements(plan, tuples, &[cut_set, back_set]).flat_map(|it| {
            // Adding what is there leaves it the time that it has.
            let [add, delete] = replaced(&it);
            [add.clone(), delete, add]
        });
        let changes = changes.collect();
        self.socket.apply(&Transaction::of(changes))?;
        Ok(())
    }

    /// Lets the packets of connections pass again that were cut. Who opened one has to speak first.
    pub(super) fn release(&mut self, plan: &Plan, tuples: &[Tuple]) -> Result<(), KernelError> {
        // What is not there cannot be taken out, and any of them may have run out by now.
        let changes = cut_elements(plan, tuples, &[cut_set]).flat_map(|it| replaced(&it));
        let changes = changes.collect();
        self.socket.apply(&Transaction::of(changes))?;
        Ok(())
    }

    /// The connections whose packets are kept dropped now, each as it was opened.
    pub(super) fn kept_cut(&mut self, plan: &Plan) -> Result<Vec<Tuple>, KernelError> {
        let mut tuples = Vec::new();
        for family in Family::BOTH {
            let elements = self.kept(&cut_set(family), cut_kind(plan, family))?;
            tuples.extend(elements.into_iter().filter_map(|element| match element {
                Element::Tuple(tuple) => Some(tuple),
                _ => None,
            }));
        }
        Ok(tuples)
    }

    /// The interfaces behind which addresses are by the table that is there, so that who was told of them need not be told again.
    pub(super) fn behind(&mut self) -> Result<BTreeMap<IpAddr, Interface>, KernelError> {
        let mut ports = BTreeMap::new();
        for family in Family::BOTH {
            let kind = SetKind::Sources(family);
            let elements = self.kept(&sources_set(family), kind)?;
            ports.extend(elements.into_iter().filter_map(|element| match element {
                Element::Source(port, address) => Some((address, port)),
                _ => None,
            }));
        }
        ports.retain(|address, _| !address.is_unspecified());
        Ok(ports)
    }

    /// Whether the kernel has no nftables for bridges.
    pub(super) fn lacks_bridges(&self) -> bool {
        self.lacks_bridges
    }

    /// What our counters have counted since the table was made.
    pub(super) fn counters(&mut self) -> Result<BTreeMap<CounterName, Counted>, KernelError> {
        Ok(nft::counters(&mut self.socket)?)
    }

    /// Whether the kernel holds the table; none where it changed while it was read.
    fn holds(&mut self, wanted: &Ruleset) -> Result<Option<bool>, KernelError> {
        let Some(mut found) = nft::read(&mut self.socket)? else {
            return Ok(Some(false));
        };
        if self.lacks_bridges {
            found.ruleset.bridge.clone_from(&wanted.bridge);
        }
        let is_same = found.strangers.is_empty() && found.ruleset == *wanted;
        Ok((is_same || !found.is_torn).then_some(is_same))
    }

    /// The connections that are cut now, to be put into a table that is made anew. They are dropped for their whole time again:
    /// too long is better than too short.
    fn cut(&mut self, plan: &Plan) -> Result<Vec<Change>, KernelError> {
        let mut changes = Vec::new();
        let sets =
            Family::BOTH.map(|family| [cut_set(family), back_set(family)].map(|set| (set, family)));
        for (set, family) in sets.into_iter().flatten() {
            let kind = cut_kind(plan, family);
            let elements = self.kept(&set, kind)?;
            if !elements.is_empty() {
                changes.push(Change::AddElements(set, kind, elements));
            }
        }
        Ok(changes)
    }

    /// The elements of a set; none where there is no such set.
    fn kept(&mut self, set: &SetName, kind: SetKind) -> Result<Vec<Element>, KernelError> {
        let held = nft::elements(&mut self.socket, set, kind)?;
        let elements = held.into_iter().flat_map(|held| held.elements);
        Ok(elements.map(|(element, _)| element).collect())
    }
}

/// Takes our tables away.
pub fn remove() -> Result<(), ApplyError> {
    remove_by(&Transaction::removal())
}

/// Whether our table is there.
pub fn has_table() -> Result<bool, KernelError> {
    let chains = nft::all_chains(&mut Socket::open()?)?;
    Ok(chains.iter().any(nft::is_ours))
}

/// Takes our table for bridges away, for an agent that wants none.
pub fn remove_bridge() -> Result<(), ApplyError> {
    remove_by(&Transaction {
        changes: Vec::new(),
        ..Transaction::removal()
    })
}

fn remove_by(removal: &Transaction) -> Result<(), ApplyError> {
    let mut socket = Socket::open()?;
    match socket.apply(removal) {
        Err(error) if is_for_bridges(&error, removal) => {
            socket.apply(&Transaction::of(removal.changes.clone()))
        }
        done => done,
    }
}

/// Whether something was refused because this kernel has no nftables for bridges.
fn is_for_bridges(error: &ApplyError, transaction: &Transaction) -> bool {
    match error {
        ApplyError::Refused(refusal) => {
            let is_lacking = matches!(
                refusal.errno,
                Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::NOENT
            );
            let at = refusal.change;
            is_lacking && at.is_some_and(|change| change >= transaction.changes.len())
        }
        _ => false,
    }
}

/// Connections as elements of sets of their families, where there are any.
fn cut_elements(
    plan: &Plan,
    tuples: &[Tuple],
    sets: &[fn(Family) -> SetName],
) -> impl Iterator<Item = (SetName, SetKind, Vec<Element>)> {
    let all = Family::BOTH.into_iter().flat_map(move |family| {
        let of_family = tuples.iter().filter(|it| Family::of(it.source.0) == family);
        let elements: Vec<Element> = of_family.copied().map(Element::Tuple).collect();
        let kind = cut_kind(plan, family);
        sets.iter()
            .map(move |set| (set(family), kind, elements.clone()))
    });
    all.filter(|(_, _, elements)| !elements.is_empty())
}

/// Adds elements, which need not be there for that, and takes them out.
fn replaced((set, kind, elements): &(SetName, SetKind, Vec<Element>)) -> [Change; 2] {
    [
        Change::AddElements(set.clone(), *kind, elements.clone()),
        Change::DeleteElements(set.clone(), *kind, elements.clone()),
    ]
}

fn cut_kind(plan: &Plan, family: Family) -> SetKind {
    SetKind::Tuples(family, plan.options().cut_seconds)
}
