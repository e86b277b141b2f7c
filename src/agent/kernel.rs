//! The table in the kernel, and what is done where it is not the wanted one.
//!
//! A change is applied; where the kernel refuses it the old rules stand, and the whole table is made anew in one transaction. The
//! same is done when somebody else has touched it. Connections that were cut stay so through all of that.

use std::collections::BTreeMap;

use crate::agent::nft::{self, ApplyError, Counted, Monitor, ReadError, Socket};
use crate::netpol::Family;
use crate::ruleset::{
    Change, CounterName, Element, Plan, Ruleset, SetKind, SetName, Transaction, Tuple, cut_set,
};
use crate::telemetry::agent::{AgentMetrics, Rebuild};

/// Our table in the kernel of this node.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: Socket,
    metrics: AgentMetrics,
    /// The kernel may hold something else than what was wanted last.
    is_doubtful: bool,
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
        match self.socket.apply(transaction) {
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
        self.socket.apply(&transaction).inspect_err(|_| {
            self.metrics.failures.inc();
        })?;
        self.is_doubtful = false;
        self.metrics.transactions.inc();
        self.metrics.rebuilt(reason);
        Ok(())
    }

    /// Reads the table back and repairs it where it is not the wanted one.
    pub(super) fn verify(&mut self, plan: &Plan) -> Result<Held, KernelError> {
        let wanted = plan.whole().as_kept();
        match self.holds(&wanted)? {
            Some(true) => return Ok(Held::Same),
            Some(false) => {}
            None => return Ok(Held::Unknown),
        }
        self.rebuild(plan, Rebuild::Touched)?;
        match self.holds(&wanted)? {
            Some(true) => Ok(Held::Repaired),
            None => Ok(Held::Unknown),
            Some(false) => {
                self.is_doubtful = true;
                Err(KernelError::Contended)
            }
        }
    }

    /// Keeps the packets of connections dropped, in both directions.
    pub(super) fn keep_cut(&mut self, plan: &Plan, tuples: &[Tuple]) -> Result<(), KernelError> {
        let mut changes = Vec::new();
        for family in Family::BOTH {
            let of_family = tuples.iter().filter(|it| Family::of(it.source.0) == family);
            let elements = of_family.flat_map(|tuple| [*tuple, tuple.reversed()]);
            let elements: Vec<Element> = elements.map(Element::Tuple).collect();
            if !elements.is_empty() {
                changes.push(Change::AddElements(
                    cut_set(family),
                    cut_kind(plan, family),
                    elements,
                ));
            }
        }
        self.socket.apply(&Transaction { changes })?;
        Ok(())
    }

    /// What our counters have counted since the table was made.
    pub(super) fn counters(&mut self) -> Result<BTreeMap<CounterName, Counted>, KernelError> {
        Ok(nft::counters(&mut self.socket)?)
    }

    /// Whether the kernel holds the table; none where it changed while it was read.
    fn holds(&mut self, wanted: &Ruleset) -> Result<Option<bool>, KernelError> {
        let Some(found) = nft::read(&mut self.socket)? else {
            return Ok(Some(false));
        };
        let is_same = found.strangers.is_empty() && found.ruleset.as_kept() == *wanted;
        Ok((is_same || !found.is_torn).then_some(is_same))
    }

    /// The connections that are cut now, to be put into a table that is made anew. They are dropped for their whole time again:
    /// too long is better than too short.
    fn cut(&mut self, plan: &Plan) -> Result<Vec<Change>, KernelError> {
        let mut changes = Vec::new();
        for family in Family::BOTH {
            let (set, kind): (SetName, SetKind) = (cut_set(family), cut_kind(plan, family));
            let Some(held) = nft::elements(&mut self.socket, &set, kind)? else {
                continue;
            };
            let elements: Vec<Element> = held
                .elements
                .into_iter()
                .map(|(element, _)| element)
                .collect();
            if !elements.is_empty() {
                changes.push(Change::AddElements(set, kind, elements));
            }
        }
        Ok(changes)
    }
}

/// Takes our table away.
pub fn remove() -> Result<(), ApplyError> {
    Socket::open()?.apply(&Transaction::removal())
}

fn cut_kind(plan: &Plan, family: Family) -> SetKind {
    SetKind::Tuples(family, plan.options().cut_seconds)
}
