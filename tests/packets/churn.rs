//! Agents killed again and again while everything changes: what comes through is what the model allows.
//!
//! Pods, policies of all kinds, labels and namespaces come, change and go at random through a real API server, and the agent of
//! one node after the other gets SIGKILL, while traffic of several kinds goes on between all pods. Packet sockets at both ends
//! of each flow, which know nothing of the agent, say what came through. Held: no packet that the model denies both before and
//! after a change; none that it denies later than a second after the API server has answered and told of it, or after the agent
//! is up again where it was dead (see `timeline`); and nothing fails for a second that is allowed all the time.
//!
//! `RINGFENCE_CHURN=200` kills so often, about every three seconds. `RINGFENCE_DICE` makes the changes of an earlier run, which
//! has said its number.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringfence::netpol::{Object, ObjectKey, Snapshot, parse};
use serde_json::{Value, json};

use crate::capture::{Capture, Tuple};
use crate::news::{Change, News};
use crate::process::Process;
use crate::site::{Kind, Named, Site, Written};
use crate::timeline::{Down, Judge, Timeline};
use crate::traffic::{self, Attempt, Line, Traffic};

const NAMESPACES: [&str; 2] = ["red", "blue"];
const PODS: [(&str, usize); 6] = [
    ("p0", 0),
    ("p1", 0),
    ("p2", 0),
    ("p3", 1),
    ("p4", 1),
    ("p5", 1),
];
const APPS: [&str; 3] = ["a", "b", "c"];
const TEAMS: [&str; 2] = ["one", "two"];
const TCP: [u16; 2] = [80, 8080];
const UDP: [u16; 2] = [53, 90];
/// Where long exchanges are, one port for each.
const LONG: u16 = 7000;
/// No port of a server is higher, no port of a client lower.
const SERVERS: u16 = 10_000;

/// A way to chance that is written down by one number.
struct Dice(u64);

/// What changes, and what the model has to say of it.
struct World<'s> {
    site: &'s Site,
    dice: Dice,
    objects: BTreeMap<ObjectKey, Object>,
    timeline: Timeline,
    apps: [&'static str; PODS.len()],
    pods: [Option<ObjectKey>; PODS.len()],
    namespaces: BTreeMap<&'static str, ObjectKey>,
    policies: BTreeMap<Written, ObjectKey>,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it wants the machine for itself: cargo test --test packets -- --ignored churn"]
async fn nothing_passes_that_is_denied_while_agents_are_killed_and_everything_changes() {
    let kills = asked("RINGFENCE_CHURN").unwrap_or(10);
    let dice = asked("RINGFENCE_DICE").unwrap_or(std::process::id().into());
    println!("dice {dice}");
    let site = Site::new(2, &PODS, &NAMESPACES).await;
    site.know_cluster_policies();
    let (mut tcp, udp) = (TCP.to_vec(), UDP);
    tcp.extend(udp);
    site.cluster.serve_all(&tcp);
    let news = News::watch(&site.kubernetes.client().await);
    let mut world = World::new(&site, Dice(dice)).await;
    let agents = vec![site.agent(0).await, site.agent(1).await];
    world.change_some(4).await;
    tokio::time::sleep(grace()).await;

    let captures: Vec<(usize, Capture)> = (0..PODS.len())
        .map(|pod| {
            (
                pod,
                Capture::start(&site.cluster.pod(PODS[pod].0).place.namespace),
            )
        })
        .collect();
    let lines = lines(&site);
    let traffic = Traffic::start(&lines);
    let begun = Instant::now();
    let over = AtomicBool::new(false);
    let ((downs, agents), ()) = tokio::join!(
        kill(&site, agents, kills, Dice(dice + 1), &over),
        world.change_until(&over)
    );
    tokio::time::sleep(2 * grace()).await;
    let lasted = begun.elapsed();
    let attempts = traffic.stop();
    let changes = world.timeline.len();
    let judge = world.timeline.judge(2, &news, downs);

    let places: HashMap<IpAddr, usize> = [false, true]
        .into_iter()
        .flat_map(|v6| (0..PODS.len()).map(move |pod| (v6, pod)))
        .map(|(v6, pod)| (site.cluster.pod(PODS[pod].0).place.address(v6), pod))
        .collect();
    let mut seen = Seen::default();
    for (pod, capture) in captures {
        seen.take(pod, &capture.stop(), &places, &judge);
    }
    let passed = attempts.iter().filter(|attempt| attempt.passed).count();
    let is_owed = |attempt: &Attempt| {
        let line = &lines[attempt.line];
        judge.must_pass(line.flow(), attempt.span, [line.from.node, line.to.node])
    };
    let broken: Vec<String> = streaks(&attempts, is_owed)
        .into_iter()
        .filter(|(_, (from, to))| *to - *from >= grace())
        .map(|(line, (from, to))| {
            let line = &lines[line];
            format!(
                "{:?} {:?} for {:?}, {:?} after the beginning, {}",
                line.kind,
                line.flow(),
                to - from,
                from - begun,
                judge.around(from)
            )
        })
        .collect();
    seen.late.sort();
    println!(
        "{kills} kills and {changes} changes in {lasted:?}: {} packets sent, {} came through, {} while denied by the newest \
         state ({:?} after it was known at most; told {:?} after the answer at most); {} attempts, {passed} passed; {} leaks, {} broken",
        seen.sent,
        seen.arrived,
        seen.late.len(),
        seen.late.last(),
        judge.slowest_news(),
        attempts.len(),
        seen.leaks.len(),
        broken.len(),
    );
    let first = |found: &[String]| {
        found
            .iter()
            .take(20)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(
        seen.leaks.is_empty() && broken.is_empty(),
        "{} packets came through that are denied:\n{}\n{} broken that are allowed:\n{}\nsaid by the agents at last:\n{}",
        seen.leaks.len(),
        first(&seen.leaks),
        broken.len(),
        first(&broken),
        last_lines(&agents)
    );
    // There was something to leak, and something to break.
    assert!(seen.sent > seen.arrived + 20 * kills, "{} sent", seen.sent);
    assert!(passed > 50 * kills && attempts.len() > passed + 5 * kills);
    assert!(changes > 2 * kills, "{changes}");
}

/// A number that somebody asked for.
fn asked<N: FromStr<Err: Debug>>(variable: &str) -> Option<N> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect(variable))
}

/// What agents wrote at last, but for what they say of denied packets.
fn last_lines(agents: &[Process]) -> String {
    let of_one = |agent: &Process| {
        let log = agent.log();
        let told = log.lines().filter(|line| !line.contains(" denied from="));
        let mut lines: Vec<&str> = told.collect();
        lines.drain(..lines.len().saturating_sub(40));
        lines.join("\n")
    };
    agents.iter().map(of_one).collect::<Vec<_>>().join("\n\n")
}

/// How long the old state may still show: a second where the test has the machine for itself, as the long form is to have;
/// among other tests the agent may wait for a processor.
fn grace() -> Duration {
    let is_long = std::env::var_os("RINGFENCE_CHURN").is_some();
    Duration::from_secs(if is_long { 1 } else { 3 })
}

/// For how long each line did not pass, attempt after attempt, though it was allowed all the time.
fn streaks(
    attempts: &[Attempt],
    is_owed: impl Fn(&Attempt) -> bool,
) -> Vec<(usize, (Instant, Instant))> {
    let mut open: HashMap<usize, (Instant, Instant)> = HashMap::new();
    let mut streaks = Vec::new();
    let mut sorted: Vec<&Attempt> = attempts.iter().collect();
    sorted.sort_by_key(|attempt| attempt.span.0);
    for attempt in sorted {
        let (from, to) = attempt.span;
        if !attempt.passed && is_owed(attempt) {
            open.entry(attempt.line).or_insert((from, to)).1 = to;
        } else {
            streaks.extend(open.remove(&attempt.line).map(|span| (attempt.line, span)));
        }
    }
    streaks.extend(open);
    streaks
}

/// All pods to all, by connections or datagrams, and some for long.
fn lines(site: &Site) -> Vec<Line> {
    let mut lines = Vec::new();
    let pod = |number: usize| site.cluster.pod(PODS[number].0).clone();
    for from in 0..PODS.len() {
        for to in (0..PODS.len()).filter(|to| *to != from) {
            let turn = from * 5 + to;
            let mut line = |kind, v6, port| {
                let (from, to) = (pod(from), pod(to));
                lines.push(Line {
                    kind,
                    from,
                    to,
                    v6,
                    port,
                });
            };
            match turn % 4 {
                0 => line(traffic::Kind::Connections, false, TCP[turn / 4 % 2]),
                1 => line(traffic::Kind::Connections, true, TCP[turn / 4 % 2]),
                2 => line(traffic::Kind::Datagrams, false, UDP[turn / 4 % 2]),
                _ => line(traffic::Kind::Datagrams, true, UDP[turn / 4 % 2]),
            }
        }
    }
    for (number, (from, to)) in (0_u16..).zip([(0, 1), (1, 3), (3, 0), (4, 5), (5, 2), (2, 4)]) {
        for (kind, port) in [
            (traffic::Kind::Connection, LONG),
            (traffic::Kind::Exchange, LONG + 100),
        ] {
            let (from, to) = (pod(from), pod(to));
            let v6 = number % 2 == 1;
            let port = port + number;
            lines.push(Line {
                kind,
                from,
                to,
                v6,
                port,
            });
        }
    }
    lines
}

/// Kills one agent after the other and starts it again. Those that run at last are for the caller to end: the last change may
/// still be on its way to them.
async fn kill(
    site: &Site,
    mut agents: Vec<Process>,
    kills: usize,
    mut dice: Dice,
    over: &AtomicBool,
) -> (Vec<Down>, Vec<Process>) {
    let mut downs = Vec::new();
    for turn in 0..kills {
        tokio::time::sleep(Duration::from_millis(500 + dice.below(3000))).await;
        let node = turn % agents.len();
        let from = Instant::now();
        agents[node].signal("KILL");
        tokio::time::sleep(Duration::from_millis(dice.below(500))).await;
        agents[node] = site.agent(node).await;
        let to = Instant::now();
        downs.push(Down { node, from, to });
    }
    tokio::time::sleep(grace()).await;
    over.store(true, Ordering::Relaxed);
    (downs, agents)
}

/// What was seen at the pods.
#[derive(Default)]
struct Seen {
    sent: usize,
    arrived: usize,
    late: Vec<Duration>,
    leaks: Vec<String>,
}

// === impl Seen ===

impl Seen {
    fn take(
        &mut self,
        pod: usize,
        packets: &[crate::capture::Packet],
        places: &HashMap<IpAddr, usize>,
        judge: &Judge,
    ) {
        for packet in packets {
            let tuple = packet.tuple;
            let Some(from) = places
                .get(&tuple.from)
                .filter(|_| places.contains_key(&tuple.to))
            else {
                continue;
            };
            if !matches!(tuple.protocol, 6 | 17) {
                continue;
            }
            if *from == pod {
                self.sent += 1;
                continue;
            }
            self.arrived += 1;
            let flow = opened(tuple);
            // A reply is held by the rules for who opened the flow, on the nodes of its two ends.
            let nodes = [flow.from, flow.to].map(|address| PODS[places[&address]].1);
            if !judge.may_pass(flow, packet.at, nodes) {
                self.leaks.push(format!(
                    "{tuple:?} {:#x}, {}; {}",
                    packet.kind,
                    judge.around(packet.at),
                    judge.history(flow, packet.at, nodes)
                ));
            }
            self.late.extend(judge.lateness(flow, packet.at, nodes));
        }
    }
}

/// The flow that a packet belongs to, in the direction in which it was opened.
fn opened(tuple: Tuple) -> Tuple {
    if tuple.to_port < SERVERS {
        return tuple;
    }
    Tuple {
        from: tuple.to,
        to: tuple.from,
        protocol: tuple.protocol,
        from_port: tuple.to_port,
        to_port: tuple.from_port,
    }
}

// === impl Dice ===

impl Dice {
    /// A number below another one.
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

// === impl World ===

impl<'s> World<'s> {
    /// With all pods, and without a policy.
    async fn new(site: &'s Site, dice: Dice) -> Self {
        let mut this = Self {
            site,
            dice,
            objects: BTreeMap::new(),
            timeline: Timeline::new(grace()),
            apps: std::array::from_fn(|pod| APPS[pod % APPS.len()]),
            pods: [const { None }; PODS.len()],
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
        };
        for namespace in NAMESPACES {
            this.label(namespace, "one").await;
        }
        for pod in 0..PODS.len() {
            this.create(pod).await;
        }
        this
    }

    fn named(&self, pod: usize) -> Named<'static> {
        Named {
            namespace: NAMESPACES[pod % 2],
            name: PODS[pod].0,
            app: self.apps[pod],
        }
    }

    /// The API server has answered with an object.
    fn is_now(&mut self, asked: Instant, value: &Value) -> ObjectKey {
        let answered = Instant::now();
        let object = parse(value).unwrap().expect("a kind of the model").object;
        let version = value["metadata"]["resourceVersion"].as_str().unwrap();
        let key = object.key();
        let change = Change::Now(key.clone(), version.parse().unwrap());
        self.objects.insert(key.clone(), object);
        self.push(change, (asked, answered));
        key
    }

    /// The API server has answered that an object is gone.
    fn is_gone(&mut self, asked: Instant, key: ObjectKey) {
        let answered = Instant::now();
        self.objects.remove(&key).expect("it was there");
        self.push(Change::Gone(key), (asked, answered));
    }

    fn push(&mut self, change: Change, at: (Instant, Instant)) {
        let snapshot: Snapshot = self.objects.values().cloned().collect();
        self.timeline.push(change, at, snapshot);
    }

    async fn create(&mut self, pod: usize) {
        let (name, node) = PODS[pod];
        let named = self.named(pod);
        let asked = Instant::now();
        let value = self.site.schedule(named, node).await;
        self.is_now(asked, &value);
        let asked = Instant::now();
        let place = &self.site.cluster.pod(name).place;
        let value = self.site.running(named, place).await;
        self.pods[pod] = Some(self.is_now(asked, &value));
    }

    async fn delete(&mut self, pod: usize) {
        let key = self.pods[pod].take().expect("it is there");
        let asked = Instant::now();
        self.site.delete(self.named(pod)).await;
        self.is_gone(asked, key);
    }

    /// A namespace goes with all that is in it, and comes again with other pods.
    async fn replace(&mut self, namespace: &'static str) {
        let pods = (0..PODS.len()).filter(|pod| NAMESPACES[pod % 2] == namespace);
        let pods: Vec<usize> = pods.collect();
        for pod in &pods {
            self.delete(*pod).await;
        }
        let policies = self.policies.keys().cloned();
        let policies: Vec<Written> = policies
            .filter(|policy| policy.namespace == Some(namespace))
            .collect();
        for policy in policies {
            self.drop_policy(policy).await;
        }
        let key = self.namespaces.remove(namespace).expect("it is there");
        let asked = Instant::now();
        self.site.without_namespace(namespace).await;
        self.is_gone(asked, key);
        let labels = [("team", self.dice.one(&TEAMS))].into();
        let asked = Instant::now();
        let value = self.site.namespace(namespace, &labels).await;
        let key = self.is_now(asked, &value);
        self.namespaces.insert(namespace, key);
        for pod in pods {
            self.apps[pod] = self.dice.one(&APPS);
            self.create(pod).await;
        }
    }

    async fn label(&mut self, namespace: &'static str, team: &str) {
        let asked = Instant::now();
        let value = self.site.label(namespace, &[("team", team)].into()).await;
        let key = self.is_now(asked, &value);
        self.namespaces.insert(namespace, key);
    }

    async fn change_until(&mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            self.change_some(1).await;
            let pause = Duration::from_millis(300 + self.dice.below(1200));
            tokio::time::sleep(pause).await;
        }
    }

    async fn change_some(&mut self, count: usize) {
        for _ in 0..count {
            match self.dice.below(20) {
                0..6 => self.policy(Kind::Network).await,
                6 | 7 => self.policy(Kind::Staged).await,
                8 | 9 => self.policy(Kind::Cluster).await,
                10..14 => {
                    let there: Vec<_> = self.policies.keys().cloned().collect();
                    if there.is_empty() {
                        self.policy(Kind::Network).await;
                    } else {
                        let policy = there[self.dice.below(there.len() as u64) as usize].clone();
                        self.drop_policy(policy).await;
                    }
                }
                14 | 15 => {
                    let pod = self.dice.below(PODS.len() as u64) as usize;
                    self.apps[pod] = self.dice.one(&APPS);
                    let asked = Instant::now();
                    let value = self.site.relabel(self.named(pod)).await;
                    self.is_now(asked, &value);
                }
                16 | 17 => {
                    let namespace = self.dice.one(&NAMESPACES);
                    let team = self.dice.one(&TEAMS);
                    self.label(namespace, team).await;
                }
                18 => {
                    // Another pod gets the address.
                    let pod = self.dice.below(PODS.len() as u64) as usize;
                    self.delete(pod).await;
                    self.apps[pod] = self.dice.one(&APPS);
                    self.create(pod).await;
                }
                _ => {
                    let namespace = self.dice.one(&NAMESPACES);
                    self.replace(namespace).await;
                }
            }
        }
    }

    async fn policy(&mut self, kind: Kind) {
        let namespace = match kind {
            Kind::Network | Kind::Staged => Some(self.dice.one(&NAMESPACES)),
            Kind::Cluster => None,
        };
        let name = format!("policy-{}", self.dice.below(3));
        let spec = match kind {
            Kind::Network => self.spec(),
            Kind::Staged => self.staged(),
            Kind::Cluster => self.wide(),
        };
        let policy = Written {
            kind,
            namespace,
            name,
        };
        let asked = Instant::now();
        let value = self.site.write(&policy, &spec).await;
        let key = self.is_now(asked, &value);
        self.policies.insert(policy, key);
    }

    async fn drop_policy(&mut self, policy: Written) {
        let key = self.policies.remove(&policy).expect("it is there");
        let asked = Instant::now();
        self.site.take_away(&policy).await;
        self.is_gone(asked, key);
    }

    /// The spec of a policy on trial, in force for some pods or for none.
    fn staged(&mut self) -> Value {
        let mut spec = self.spec();
        let app = self.dice.one(&APPS);
        match self.dice.below(3) {
            0 => {}
            1 => {
                spec["stage"] = json!("Canary");
                spec["canary"] = json!({"percent": self.dice.one(&[20, 50, 80])});
            }
            _ => {
                spec["stage"] = json!("Canary");
                spec["canary"] = json!({"podSelector": {"matchLabels": {"app": app}}});
            }
        }
        spec
    }

    /// The spec of a policy of the cluster.
    fn wide(&mut self) -> Value {
        let subject = self.many();
        let mut spec = json!({
            "tier": self.dice.one(&["Admin", "Baseline"]), "priority": self.dice.one(&[1, 10, 10]), "subject": subject,
        });
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            let count = self.dice.below(3);
            let rules = (0..count).map(|_| {
                let action = self.dice.one(&["Accept", "Deny", "Pass"]);
                let mut rule = json!({"action": action, peers: [self.many()]});
                let ports = [
                    json!([{"tcp": {"destinationPort": {"number": 80}}}, {"destinationNamedPort": "dns"}]),
                    json!([{"tcp": {"destinationPort": {"range": {"start": 7000, "end": 8100}}}}]),
                ];
                if let Some(ports) = ports.get(self.dice.below(4) as usize) {
                    rule["protocols"] = ports.clone();
                }
                rule
            });
            let rules: Vec<Value> = rules.collect();
            if !rules.is_empty() {
                spec[direction] = json!(rules);
            }
        }
        spec
    }

    /// Pods of several namespaces.
    fn many(&mut self) -> Value {
        let team = json!({"matchLabels": {"team": self.dice.one(&TEAMS)}});
        let app = json!({"matchLabels": {"app": self.dice.one(&APPS)}});
        let any = json!({"matchExpressions": [{"key": "team", "operator": "Exists"}]});
        match self.dice.below(3) {
            0 => json!({"namespaces": team}),
            // An empty selector that takes the place of another one is lost where the API server knows no types.
            1 => json!({"pods": {"namespaceSelector": any, "podSelector": app}}),
            _ => json!({"pods": {"namespaceSelector": team, "podSelector": app}}),
        }
    }

    fn spec(&mut self) -> Value {
        let app = |dice: &mut Dice| json!({"matchLabels": {"app": dice.one(&APPS)}});
        let selector = match self.dice.below(3) {
            0 => json!({}),
            _ => app(&mut self.dice),
        };
        let mut spec = json!({"podSelector": selector});
        let types = self
            .dice
            .one(&[&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]]);
        spec["policyTypes"] = json!(types);
        for (direction, peers) in [("Ingress", "from"), ("Egress", "to")] {
            if types.contains(&direction) {
                let count = self.dice.below(3);
                let rules = (0..count).map(|_| self.rule(peers)).collect::<Vec<_>>();
                spec[direction.to_lowercase()] = json!(rules);
            }
        }
        spec
    }

    fn rule(&mut self, peers: &str) -> Value {
        let mut rule = json!({});
        let app = json!({"matchLabels": {"app": self.dice.one(&APPS)}});
        let team = json!({"matchLabels": {"team": self.dice.one(&TEAMS)}});
        let pod = self.dice.one(&PODS).0;
        let place = &self.site.cluster.pod(pod).place;
        match self.dice.below(6) {
            0 => rule[peers] = json!([{"podSelector": app}]),
            1 => rule[peers] = json!([{"namespaceSelector": team}]),
            2 => rule[peers] = json!([{"podSelector": app, "namespaceSelector": team}]),
            3 => rule[peers] = json!([{"podSelector": {}}, {"namespaceSelector": team}]),
            4 => {
                let blocks = [
                    json!({"cidr": "10.244.0.0/23", "except": [format!("{}/32", place.v4)]}),
                    json!({"cidr": "fd00:10:244::/63", "except": [format!("{}/128", place.v6)]}),
                ];
                rule[peers] = json!(blocks.map(|block| json!({"ipBlock": block})));
            }
            _ => {}
        }
        match self.dice.below(5) {
            0 => rule["ports"] = json!([{"port": 80}, {"port": 53, "protocol": "UDP"}]),
            1 => rule["ports"] = json!([{"port": "web"}, {"port": "dns", "protocol": "UDP"}]),
            2 => {
                rule["ports"] = json!([
                    {"port": 7000, "endPort": 7103}, {"port": 7000, "endPort": 7200, "protocol": "UDP"},
                ]);
            }
            _ => {}
        }
        rule
    }
}
