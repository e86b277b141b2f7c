//! Others are noticed, and we are not.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringfence::agent::nft::{Event, Monitor, Socket};
use ringfence::netpol::Family;
use ringfence::ruleset::{Element, Ruleset, Set, SetKind, Transaction};

use crate::apply::apply;
use crate::random;
use crate::space::{alone, nft};

/// Long enough for what the kernel has told already.
const SOON: Duration = Duration::from_millis(100);

/// Waits for something that is to come.
fn next(monitor: &mut Monitor) -> Event {
    let start = Instant::now();
    loop {
        let events = monitor.wait(Duration::from_secs(1)).expect("heard");
        if let [event] = events.as_slice() {
            return event.clone();
        }
        assert_eq!(events, []);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "nothing is heard"
        );
    }
}

/// Hears all that the kernel has told already.
fn all(monitor: &mut Monitor) -> Vec<Event> {
    let mut events = Vec::new();
    // Own changes fill what is received and give nothing; silence takes its time.
    loop {
        let start = Instant::now();
        events.extend(monitor.wait(SOON).expect("heard"));
        if start.elapsed() >= SOON {
            return events;
        }
    }
}

#[test]
fn our_own_changes_are_not_told() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let mut monitor = Monitor::open(vec![socket.port()]).expect("a monitor");
        let mut old = Ruleset::default();
        apply(&mut socket, &Transaction::whole(&old));
        for seed in 0..10 {
            let new = random::ruleset(seed);
            apply(&mut socket, &Transaction::between(&old, &new));
            old = new;
        }
        apply(&mut socket, &Transaction::removal());
        assert_eq!(all(&mut monitor), []);
    });
}

#[test]
fn what_others_do_to_our_table_is_told_and_what_they_do_elsewhere_is_not() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        apply(&mut socket, &Transaction::whole(&random::ruleset(1)));
        let mut monitor = Monitor::open(vec![socket.port()]).expect("a monitor");
        nft("table inet other { chain c { accept; }; }\ntable ip ringfence { chain c { accept; }; }")
            .expect("accepted");
        assert_eq!(all(&mut monitor), []);

        nft("add chain inet ringfence another").expect("accepted");
        let Event::Touched(author) = next(&mut monitor) else {
            panic!("another event");
        };
        assert_eq!(author.name, "nft");
        assert_ne!(author.process, 0);

        nft("add table bridge ringfence\nadd chain bridge ringfence another").expect("accepted");
        assert!(matches!(next(&mut monitor), Event::Touched(_)));
        nft("delete table bridge ringfence").expect("accepted");
        assert!(matches!(next(&mut monitor), Event::Deleted(_)));

        nft("delete table inet ringfence").expect("accepted");
        assert!(matches!(next(&mut monitor), Event::Deleted(author) if author.name == "nft"));

        apply(&mut socket, &Transaction::whole(&random::ruleset(1)));
        nft("flush ruleset").expect("accepted");
        assert!(matches!(next(&mut monitor), Event::Deleted(_)));
        // Nobody flushes what is not there.
        nft("flush ruleset").expect("accepted");
        assert_eq!(all(&mut monitor), []);
    });
}

#[test]
fn another_socket_of_the_same_process_is_somebody_else() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let mut other = Socket::open().expect("a socket");
        let mut monitor = Monitor::open(vec![socket.port()]).expect("a monitor");
        apply(&mut socket, &Transaction::whole(&random::ruleset(1)));
        apply(&mut other, &Transaction::removal());
        assert!(matches!(next(&mut monitor), Event::Deleted(_)));
    });
}

#[test]
fn too_much_to_hear_is_told() {
    alone(|| {
        let mut monitor = Monitor::open(Vec::new()).expect("a monitor");
        let addresses = (0..65_000_u32).map(|n| format!("10.0.{}.{}", n / 256, n % 256));
        let elements = addresses.collect::<Vec<_>>().join(", ");
        for _ in 0..5 {
            nft(&format!(
                "add table inet other\ndelete table inet other\n\
                 table inet other {{ set s {{ type ipv4_addr; elements = {{ {elements} }}; }}; }}"
            ))
            .expect("accepted");
        }
        assert!(all(&mut monitor).contains(&Event::Lost));
        // It goes on hearing.
        nft("add table inet ringfence").expect("accepted");
        assert!(matches!(next(&mut monitor), Event::Touched(_)));
    });
}

#[test]
fn large_changes_of_our_own_are_not_heard_and_those_of_others_meanwhile_are_told() {
    let wanted = |number: u32| {
        let address = |n: u32| Element::Address(Ipv4Addr::from_bits(0x0a00_0000 + n).into());
        let mut made = Ruleset::default();
        let kind = SetKind::Addresses(Family::V4);
        let elements = (0..number).map(address).collect();
        made.sets.insert("pods".into(), Set { kind, elements });
        made
    };
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let mut monitor = Monitor::open(vec![socket.port()]).expect("a monitor");
        socket.spare(monitor.ear());
        for _ in 0..5 {
            apply(&mut socket, &Transaction::whole(&wanted(50_000)));
        }
        assert_eq!(all(&mut monitor), []);
        // A refused one changes nothing of that.
        let again = Transaction::between(&Ruleset::default(), &wanted(50_000));
        socket.apply(&again).expect_err("it is there");
        assert_eq!(all(&mut monitor), []);
        nft("add chain inet ringfence another").expect("accepted");
        assert!(matches!(next(&mut monitor), Event::Touched(_)));
        // Somebody is always there while a large change is made.
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // In the same namespace, which the thread has from this one.
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    nft("add table inet other\ndelete table inet other").expect("accepted");
                }
            });
            let start = Instant::now();
            loop {
                apply(&mut socket, &Transaction::whole(&wanted(50_000)));
                let told = monitor.wait(Duration::ZERO).expect("heard");
                if told.contains(&Event::Lost) {
                    break;
                }
                assert!(start.elapsed() < Duration::from_secs(20), "nothing is told");
            }
            is_over.store(true, Ordering::Relaxed);
        });
    });
}
