use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::flows::{self, Format, Input, Limits};
use crate::netpol::replay::{Actor, Counts};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn pod(workload: &str) -> End {
    End {
        namespace: Some("shop".to_owned()),
        workload: Some(format!("Deployment/{workload}")),
        ..End::default()
    }
}

fn record(from: &str, port: u16, second: i64) -> Record {
    Record {
        time: at(second),
        kind: Kind {
            from: pod(from),
            to: pod("db"),
            protocol: "TCP".to_owned(),
            port,
            verdict: Verdict::Denied,
        },
        count: 1,
        details: Details {
            direction: "ingress".to_owned(),
            node: "n1".to_owned(),
            policies: vec!["shop/default-deny".to_owned()],
            reason: "no policy allows it".to_owned(),
            pods: vec!["shop/web-1".to_owned(), "shop/db-0".to_owned()],
        },
    }
}

#[test]
fn the_first_is_told_at_once_and_the_rest_together() {
    let mut joiner = Joiner::new(Duration::from_secs(10), 100);
    assert_eq!(
        joiner.add(record("web", 80, 0), at(0)),
        Some(record("web", 80, 0))
    );
    assert_eq!(joiner.add(record("web", 80, 1), at(1)), None);
    assert_eq!(joiner.add(record("web", 80, 3), at(3)), None);
    assert!(joiner.add(record("web", 81, 3), at(3)).is_some());
    // The other direction is another decision.
    let mut egress = record("web", 80, 3);
    egress.details.direction = "egress".to_owned();
    assert!(joiner.add(egress, at(3)).is_some());
    assert_eq!(joiner.due(at(9)), []);
    let two = Record {
        count: 2,
        ..record("web", 80, 3)
    };
    assert_eq!(joiner.due(at(10)), [two]);
    // It went on, so the next ones are gathered again; the others were single.
    assert_eq!(joiner.add(record("web", 80, 11), at(11)), None);
    assert_eq!(joiner.due(at(14)), []);
    assert_eq!(joiner.len(), 1);
    assert_eq!(joiner.rest(), [record("web", 80, 11)]);
    assert!(joiner.is_empty());
}

#[test]
fn the_number_of_kinds_is_bounded_and_none_is_lost() {
    let mut joiner = Joiner::new(Duration::from_secs(10), 2);
    for port in 1..=5 {
        assert!(joiner.add(record("web", port, 0), at(0)).is_some());
        let again = joiner.add(record("web", port, 0), at(0));
        assert_eq!(again.is_some(), port > 2);
    }
    assert_eq!(joiner.len(), 2);
}

proptest! {
    #[test]
    fn every_packet_is_told_exactly_once(steps in proptest::collection::vec((0_u16..4, 0_i64..5, any::<bool>()), 0..60)) {
        let mut joiner = Joiner::new(Duration::from_secs(7), 3);
        let mut told = [0_u64; 4];
        let mut sent = [0_u64; 4];
        let mut now = 0;
        for (port, pause, look) in steps {
            now += pause;
            sent[usize::from(port)] += 1;
            let mut out: Vec<Record> = joiner.add(record("web", port, now), at(now)).into_iter().collect();
            if look {
                out.extend(joiner.due(at(now)));
            }
            for record in out {
                told[usize::from(record.kind.port)] += record.count;
            }
        }
        for record in joiner.rest() {
            told[usize::from(record.kind.port)] += record.count;
        }
        prop_assert_eq!(told, sent);
    }
}

#[test]
fn the_last_are_kept_and_who_asks_again_misses_none_that_are() {
    let recent = Recent::new(3);
    for port in 1..=5 {
        recent.push(record("web", port, 0));
    }
    let ports =
        |page: &Page| -> Vec<u16> { page.flows.iter().map(|record| record.kind.port).collect() };
    let first = recent.from(0);
    assert_eq!(
        (ports(&first), first.next, first.lost),
        (vec![3, 4, 5], 5, 0)
    );
    recent.push(record("web", 6, 0));
    let second = recent.from(first.next);
    assert_eq!((ports(&second), second.next, second.lost), (vec![6], 6, 0));
    assert!(recent.from(second.next).flows.is_empty());
    // Who is too slow is told so.
    for port in 7..=30 {
        recent.push(record("web", port, 0));
    }
    let late = recent.from(second.next);
    assert_eq!((ports(&late), late.lost), (vec![28, 29, 30], 21));
    // Of an agent that has begun anew everything is new.
    assert_eq!(ports(&recent.from(1000)), [28, 29, 30]);
}

#[test]
fn replay_reads_what_is_told() {
    let address = End {
        ip: Some("192.0.2.7".parse().unwrap()),
        ..End::default()
    };
    let mut records = vec![
        record("web", 80, 0),
        Record {
            count: 4,
            ..record("web", 80, 1)
        },
    ];
    let mut outside = record("web", 5432, 2);
    outside.kind.from = address;
    outside.kind.verdict = Verdict::Allowed;
    records.push(outside);
    let mut echo = record("web", 0, 3);
    echo.kind.protocol = "ICMP".to_owned();
    records.push(echo);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for record in &records {
        let line = serde_json::to_string(record).unwrap();
        assert_eq!(&serde_json::from_str::<Record>(&line).unwrap(), record);
        writeln!(file, "{line}").unwrap();
    }
    let input = [Input::Path(file.path().to_owned())];
    for format in [None, Some(Format::Json)] {
        let read = flows::read(&input, format, &Limits::default(), &mut |_| {}).unwrap();
        assert_eq!((read.records, read.broken), (4, 0), "{:?}", read.shown);
        assert_eq!(read.passed_over.values().sum::<u64>(), 1);
        assert_eq!(read.observations.len(), 2);
        let denied: u64 = read
            .observations
            .iter()
            .map(|(_, tally)| tally.denied())
            .sum();
        let allowed: u64 = read
            .observations
            .iter()
            .map(|(_, tally)| tally.allowed())
            .sum();
        let counts = Counts { allowed, denied };
        assert_eq!(
            counts,
            Counts {
                allowed: 1,
                denied: 5
            }
        );
        assert!(
            read.observations
                .actors()
                .any(|actor| matches!(actor, Actor::Address(_)))
        );
    }
}
