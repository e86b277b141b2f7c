//! What the model allowed when: the states of a cluster while it changes, and how long the old one may still show.
//!
//! A state may show from when it was asked for, and the one before until a second after the API server has answered and
//! told who watches (see `news`). An agent that was dead meanwhile hears of the change when it is up again: on its node the
//! second counts from then.

use std::time::{Duration, Instant};

use ringfence::netpol::{Direction, Family, Flow, Port, Protocol, Snapshot, Verdict};

use crate::capture::Tuple;
use crate::news::{Change, News};

/// States, in the order in which they came about.
pub(crate) struct Timeline {
    asked: Vec<(Change, State)>,
    /// How long the old state may still show.
    grace: Duration,
}

struct State {
    asked: Instant,
    answered: Instant,
    /// When an agent could know of it: the API server has answered, and has told of it.
    known: Instant,
    snapshot: Snapshot,
}

/// An agent was not there, from when it was killed until its rules were made anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Down {
    pub(crate) node: usize,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// A timeline that is complete.
pub(crate) struct Judge {
    states: Vec<State>,
    downs: Vec<Down>,
    /// For each state and node, when the state before has to be over there.
    due: Vec<Vec<Instant>>,
}

// === impl Timeline ===

impl Timeline {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            asked: Vec::new(),
            grace,
        }
    }

    /// A change was asked for, answered, and the cluster is this now.
    pub(crate) fn push(
        &mut self,
        change: Change,
        (asked, answered): (Instant, Instant),
        snapshot: Snapshot,
    ) {
        let state = State {
            asked,
            answered,
            known: answered,
            snapshot,
        };
        self.asked.push((change, state));
    }

    pub(crate) fn len(&self) -> usize {
        self.asked.len()
    }

    /// With what was told of each change, and the times at which agents were dead, in their order.
    pub(crate) fn judge(self, nodes: usize, news: &News, downs: Vec<Down>) -> Judge {
        let states = self.asked.into_iter().map(|(change, state)| {
            let told = news.of(&change, state.asked);
            let told = told.unwrap_or_else(|| panic!("never told of {change:?}"));
            let known = state.answered.max(told);
            // Whoever waits for that long has measured nothing.
            assert!(
                known - state.answered < 10 * self.grace,
                "told late of {change:?}"
            );
            State { known, ..state }
        });
        Judge::new(states.collect(), nodes, self.grace, downs)
    }
}

fn due<'d>(known: Instant, grace: Duration, downs: impl Iterator<Item = &'d Down>) -> Instant {
    let (mut from, mut due) = (known, known + grace);
    for down in downs {
        if down.from <= due && down.to > from {
            (from, due) = (down.to, down.to + grace);
        }
    }
    due
}

// === impl Judge ===

impl Judge {
    fn new(states: Vec<State>, nodes: usize, grace: Duration, downs: Vec<Down>) -> Self {
        let due = states.iter().map(|state| {
            let of_node = |node| {
                let downs = downs.iter().filter(move |it| it.node == node);
                due(state.known, grace, downs)
            };
            (0..nodes).map(of_node).collect()
        });
        Self {
            due: due.collect(),
            states,
            downs,
        }
    }

    /// How long after its answer the API server told of a change, at most.
    pub(crate) fn slowest_news(&self) -> Duration {
        let lags = self.states.iter().map(|it| it.known - it.answered);
        lags.max().unwrap_or_default()
    }

    /// The states that may show at some time of a span, on either of two nodes.
    fn showing(&self, (from, to): (Instant, Instant), nodes: [usize; 2]) -> &[State] {
        let end = self.states.partition_point(|state| state.asked <= to);
        let over = |due: &Vec<Instant>| nodes.iter().all(|node| due[*node] < from);
        // Those before the last one that every node must know.
        let begin = self.due[..end].iter().rposition(over).unwrap_or(0);
        &self.states[begin..end]
    }

    /// Whether a flow was allowed by some state that may show at this time. Each node holds its own end, and one may have heard
    /// of a change that the other has not: where the ends are on two nodes, each may go by a state of its own.
    pub(crate) fn may_pass(
        &self,
        flow: Tuple,
        at: Instant,
        [source, destination]: [usize; 2],
    ) -> bool {
        if source == destination {
            let mut showing = self.showing((at, at), [source; 2]).iter().rev();
            return showing.any(|state| is_allowed(&state.snapshot, flow));
        }
        let passes = |node: usize, direction| {
            let mut showing = self.showing((at, at), [node; 2]).iter().rev();
            showing.any(|state| verdict(&state.snapshot, flow).at(direction).passes())
        };
        passes(source, Direction::Egress) && passes(destination, Direction::Ingress)
    }

    /// Whether a flow was allowed by every state that may show in a span.
    pub(crate) fn must_pass(
        &self,
        flow: Tuple,
        span: (Instant, Instant),
        nodes: [usize; 2],
    ) -> bool {
        let mut showing = self.showing(span, nodes).iter();
        showing.all(|state| is_allowed(&state.snapshot, flow))
    }

    /// For a packet that the newest state denies: how long ago that was known. None where it is allowed, or
    /// where an agent was dead in the meantime.
    pub(crate) fn lateness(&self, flow: Tuple, at: Instant, nodes: [usize; 2]) -> Option<Duration> {
        let end = self.states.partition_point(|state| state.known <= at);
        let denying = self.states[..end].iter().rev();
        let first = denying
            .take_while(|state| !is_allowed(&state.snapshot, flow))
            .last()?;
        let was_dead =
            |down: &Down| nodes.contains(&down.node) && down.from <= at && down.to >= first.known;
        (!self.downs.iter().any(was_dead)).then(|| at - first.known)
    }

    /// Since when each end denies a flow, and when its agent was dead around that, in words.
    pub(crate) fn history(&self, flow: Tuple, at: Instant, nodes: [usize; 2]) -> String {
        let ends = nodes
            .into_iter()
            .zip([Direction::Egress, Direction::Ingress]);
        let ends = ends.map(|(node, direction)| {
            let end = self.states.partition_point(|state| state.asked <= at);
            let denying = self.states[..end].iter().rev();
            let first = denying
                .take_while(|state| !verdict(&state.snapshot, flow).at(direction).passes())
                .last();
            let Some(first) = first else {
                return format!("{direction} at n{node} passes");
            };
            let ago = |time: Instant| format!("{:?} ago", at.saturating_duration_since(time));
            let near = |down: &&Down| {
                down.node == node
                    && down.from <= at
                    && down.to + Duration::from_secs(2) >= first.known
            };
            let downs = self.downs.iter().filter(near);
            let downs: Vec<String> = downs
                .map(|down| format!("{} to {}", ago(down.from), ago(down.to)))
                .collect();
            format!(
                "{direction} at n{node} denied {}, told {}, agent dead {}",
                ago(first.answered),
                ago(first.known),
                downs.join(" and ")
            )
        });
        ends.collect::<Vec<_>>().join("; ")
    }

    /// What was in force when, in words.
    pub(crate) fn around(&self, at: Instant) -> String {
        let end = self.states.partition_point(|state| state.asked <= at);
        let last = &self.states[end.saturating_sub(1)];
        format!(
            "{:?} after the last change was answered, {:?} after the last agent was up",
            at.saturating_duration_since(last.answered),
            self.downs
                .iter()
                .rev()
                .find(|down| down.to <= at)
                .map(|down| at - down.to)
        )
    }
}

fn is_allowed(snapshot: &Snapshot, flow: Tuple) -> bool {
    verdict(snapshot, flow).allowed()
}

fn verdict(snapshot: &Snapshot, flow: Tuple) -> Verdict {
    let protocol = if flow.protocol == 6 {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let [from, to] = [flow.from, flow.to].map(|address| snapshot.endpoint_at(address));
    let flow =
        Flow::new(from, to, protocol, Port::new(flow.to_port).unwrap()).over(Family::of(flow.from));
    snapshot.verdict(&flow)
}

#[test]
fn the_second_counts_from_when_the_agent_is_up_again() {
    let begun = Instant::now();
    let at = |millis| begun + Duration::from_millis(millis);
    let states = [0, 5_000, 20_000].map(|time| State {
        asked: at(time),
        answered: at(time + 5),
        known: at(time + 10),
        snapshot: Snapshot::default(),
    });
    let down = |node, from, to| Down {
        node,
        from: at(from),
        to: at(to),
    };
    let downs = vec![down(0, 5_500, 7_000), down(0, 7_900, 9_000)];
    let judge = Judge::new(states.into(), 2, Duration::from_secs(1), downs);
    let showing = |time, nodes| judge.showing((at(time), at(time)), nodes).len();
    assert_eq!(showing(4_000, [1, 1]), 1);
    assert_eq!(showing(5_005, [1, 1]), 2);
    assert_eq!(showing(6_000, [1, 1]), 2);
    assert_eq!(showing(6_020, [1, 1]), 1);
    assert_eq!(showing(9_900, [1, 0]), 2);
    assert_eq!(showing(10_100, [0, 1]), 1);
    assert_eq!(
        judge.showing((at(4_000), at(21_100)), [0, 1]).len(),
        3,
        "all of the span"
    );
}
