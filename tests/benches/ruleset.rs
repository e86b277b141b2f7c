//! Changes of the kernel's rules by netlink, against the same through the `nft` program.
//!
//! `cargo bench --bench ruleset`, as root: all of it is in a network namespace of its own. Sets of 1 000, 10 000 and
//! 100 000 elements are loaded, then elements are added and deleted one by one, each in a transaction of its own. CPU time
//! is that of this thread, with the kernel's work in it, or that of `nft`. As a test it has a few elements only.

// What a bench cannot prepare has failed.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ringfence::agent::nft::{self, Monitor, Socket};
use ringfence::netpol::{Family, Port};
use ringfence::ruleset::{Change, Element, Ruleset, Set, SetKind, SetName, Transaction, render};
use rustix::time::{ClockId, clock_gettime};

#[path = "../nftables/space.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod space;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KINDS: [(&str, SetKind); 4] = [
    ("verdict map", SetKind::Dispatch(Family::V4)),
    ("addresses", SetKind::Addresses(Family::V6)),
    ("address and port", SetKind::AddressPorts(Family::V4)),
    ("blocks", SetKind::Blocks(Family::V4)),
];

/// The element of a number, of which there is room for one between each and the next.
fn element(kind: SetKind, number: u32) -> Element {
    let v4 = |bits: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + bits));
    match kind {
        SetKind::Blocks(_) => Element::Block(v4(32 * number), v4(32 * number + 15)),
        SetKind::Dispatch(_) => {
            Element::Dispatch(v4(number), format!("pod-{}", number % 100).into())
        }
        SetKind::AddressPorts(_) => {
            Element::AddressPort(v4(number), Port::new(443).expect("not 0"))
        }
        _ => Element::Address(Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(number)).into()),
    }
}

fn table(kind: SetKind, elements: u32) -> Ruleset {
    let mut made = Ruleset::default();
    for number in 0..100 {
        made.chain_mut(format!("pod-{number}").into());
    }
    let elements: BTreeSet<Element> = (0..elements).map(|n| element(kind, n)).collect();
    made.sets.insert("pods".into(), Set { kind, elements });
    made
}

/// One element that comes and goes.
fn changes(kind: SetKind, number: u32) -> [Transaction; 2] {
    let one = vec![element(kind, number)];
    let name = SetName::from("pods");
    [
        Change::AddElements(name.clone(), kind, one.clone()),
        Change::DeleteElements(name, kind, one),
    ]
    .map(|change| Transaction::of(vec![change]))
}

/// The CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = time.tv_sec * 1_000_000_000 + time.tv_nsec;
    Duration::from_nanos(u64::try_from(nanoseconds).expect("not before its start"))
}

/// What something takes: CPU time of this thread, and time by the clock. The kernel waits for the end of what is deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Taken {
    clock: Duration,
    cpu: Duration,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1?} ({:.1?} by the clock)", self.cpu, self.clock)
    }
}

fn taken(what: impl FnOnce()) -> Taken {
    let (clock, start) = (Instant::now(), cpu());
    what();
    Taken {
        cpu: cpu().saturating_sub(start),
        clock: clock.elapsed(),
    }
}

/// The CPU time of programs that have ended, in steps of 10 ms.
fn children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, numbers) = stat.rsplit_once(')').expect("a name");
    let ticks = numbers.split_whitespace().skip(13).take(2);
    let ticks: u64 = ticks.map(|n| n.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}

/// The median and the 99th percentile.
fn percentiles(mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort_unstable();
    let at = |percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)];
    (at(50), at(99))
}

/// How long transactions of one element take, and how much CPU time one takes.
fn one_by_one(
    times: u32,
    kind: SetKind,
    first: u32,
    mut apply: impl FnMut(&Transaction),
) -> (Duration, Duration) {
    let mut all = Vec::new();
    for number in first..first + times {
        for change in changes(kind, number) {
            let start = Instant::now();
            apply(&change);
            all.push(start.elapsed());
        }
    }
    percentiles(all)
}

fn ratio(slow: Duration, fast: Duration) -> f64 {
    slow.as_secs_f64() / fast.as_secs_f64().max(1e-9)
}

fn measure(name: &str, kind: SetKind, elements: u32, times: u32) {
    let wanted = table(kind, elements);
    let whole = Transaction::whole(&wanted);
    let mut socket = Socket::open().expect("a socket");
    let mut load = || taken(|| socket.apply(&whole).expect("applied"));
    // The first load needs memory that later ones find.
    let cold = load();
    let mut loads: Vec<Taken> = (0..9).map(|_| load()).collect();
    loads.sort_unstable();
    let warm = loads[loads.len() / 2];
    let mut found = None;
    let read = taken(|| found = nft::read(&mut socket).expect("readable"));
    let is_same = found.is_some_and(|found| found.ruleset == wanted);
    assert!(is_same, "{name}: read back as something else");

    let mut apply = |change: &Transaction| socket.apply(change).expect("applied");
    let (median, worst) = one_by_one(times, kind, elements, &mut apply);
    let mut monitor = Monitor::open(vec![socket.port()]).expect("a monitor");
    let heard = one_by_one(times, kind, elements, |change| {
        socket.apply(change).expect("applied");
        assert_eq!(monitor.wait(Duration::ZERO).expect("heard"), []);
    });
    let heard_load = taken(|| socket.apply(&whole).expect("applied"));
    socket.spare(monitor.ear());
    let spared_load = taken(|| socket.apply(&whole).expect("applied"));
    drop(monitor);

    let few = (times / 100).clamp(2, 10);
    let by_nft = one_by_one(few, kind, elements, |change| {
        space::nft(&render::transaction(change)).expect("applied");
    });
    let text = render::ruleset(&wanted, render::Reader::Nft);
    // So often that steps of 10 ms tell something.
    let often = (20_000 / elements).clamp(1, 20);
    let start = children();
    for _ in 0..often {
        space::nft(&text).expect("applied");
    }
    let nft_load = children().saturating_sub(start) / often;
    socket.apply(&Transaction::removal()).expect("applied");
    eprintln!(
        "{name}, {elements}: load {cold} cold, {warm} warm, {heard_load} listened to, {spared_load} spared, read \
         back {read}, \
         nft {nft_load:.1?} (x{:.0}); one element p50 {median:.1?} p99 {worst:.1?}, listened to {:.1?} {:.1?}, \
         nft {:.1?} (x{:.0})",
        ratio(nft_load, warm.clock),
        heard.0,
        heard.1,
        by_nft.0,
        ratio(by_nft.0, median),
    );
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (sizes, times): (&[u32], u32) = if is_bench {
        (&[1_000, 10_000, 100_000], 1_000)
    } else {
        (&[100], 10)
    };
    eprintln!("loads and reading in CPU time, one element by the clock");
    for (name, kind) in KINDS {
        for elements in sizes {
            // Where a set has ranges the kernel walks through all of it.
            let times = if kind.has_ranges() && *elements > 10_000 {
                times / 10
            } else {
                times
            };
            space::alone(|| measure(name, kind, *elements, times));
        }
    }
}
