//! What becomes of a packet that is denied, and of one that would be if what is on trial were promoted.

use super::{Asking, Draft, Next, Writer, always};
use crate::ruleset::body::Way;
use crate::ruleset::table::{CounterName, Statement};

/// The counter of the packets that are denied on a way.
pub(in crate::ruleset) fn denied_counter(way: Way) -> CounterName {
    format!("denied-{}", way.direction()).into()
}

/// What would be another answer, if what is on trial were promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ruleset) enum Would {
    /// It passes, and would be denied.
    Deny,
    /// It is denied, and would pass.
    Allow,
}

impl Would {
    pub(in crate::ruleset) const BOTH: [Would; 2] = [Would::Deny, Would::Allow];
}

/// The counter of the packets on a way that would fare otherwise.
pub(in crate::ruleset) fn would_counter(would: Would, way: Way) -> CounterName {
    let word = match would {
        Would::Deny => "would-deny",
        Would::Allow => "would-allow",
    };
    format!("{word}-{}", way.direction()).into()
}

impl Writer<'_> {
    /// Asks what is in force, and of what passes there what is on trial.
    pub(super) fn twice(&mut self, rules: &mut Vec<Draft>) {
        let in_force = self.enter(Asking::InForce);
        rules.push(always(
            Next::Jump(in_force),
            "what is in force decides; what it denies does not come back",
        ));
        let tried = self.enter(Asking::OfPassing);
        rules.push(always(
            Next::Chain(tried),
            "it passes; what is on trial is asked too, and changes nothing",
        ));
    }

    /// What becomes of what the policies deny that are asked.
    pub(super) fn denied(&mut self, rules: &mut Vec<Draft>) {
        match self.asking {
            Asking::InForce => {
                self.tell(
                    "denied",
                    "denied packets are told to the agent, up to a rate",
                    rules,
                );
                if self.tried.is_some() {
                    let tried = self.enter(Asking::OfDenied);
                    rules.push(always(
                        Next::Jump(tried),
                        "it is denied; what is on trial is asked too, and changes nothing",
                    ));
                    self.would(Would::Allow, rules);
                }
                self.dropped(rules);
            }
            Asking::OfPassing => self.would(Would::Deny, rules),
            Asking::OfDenied => self.dropped(rules),
        }
    }

    /// Tells of a packet that would fare otherwise with what is on trial.
    fn would(&self, would: Would, rules: &mut Vec<Draft>) {
        let (word, told, counted) = match would {
            Would::Deny => (
                "would deny",
                "what would be denied is told to the agent, up to a rate",
                "what would be denied is counted, and passes",
            ),
            Would::Allow => (
                "would allow",
                "what would pass is told to the agent, up to a rate",
                "what would pass is counted",
            ),
        };
        self.tell(word, told, rules);
        rules.push(Draft {
            matches: Vec::new(),
            does: vec![Statement::Count(would_counter(would, self.way))],
            then: Next::Nothing,
            why: counted.to_owned(),
        });
    }

    fn tell(&self, what: &str, why: &str, rules: &mut Vec<Draft>) {
        let direction = self.way.direction();
        let prefix = format!("ringfence {what} {direction}");
        rules.push(Draft {
            matches: Vec::new(),
            does: Statement::tell(self.telling.group, self.telling.rate, &prefix),
            then: Next::Nothing,
            why: why.to_owned(),
        });
    }

    fn dropped(&self, rules: &mut Vec<Draft>) {
        rules.push(Draft {
            matches: Vec::new(),
            does: vec![Statement::Count(denied_counter(self.way))],
            then: Next::Drop,
            why: "denied packets are counted and dropped".to_owned(),
        });
    }
}
