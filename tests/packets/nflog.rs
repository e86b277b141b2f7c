//! What a rule logs is read: every packet once, with what it says, or counted as lost.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringfence::agent::nflog::packet::Carries;
use ringfence::agent::nflog::{NflogError, Options, Reader, Record};
use ringfence::netpol::Protocol;

use crate::cluster::{Cluster, Place};
use crate::probe::{Outcome, Table, Transport};

const RULES: &str = "table inet byhand { chain forward { type filter hook forward priority 0;
    th dport 81 log prefix \"deny/web\" group 7 drop
    udp dport 9999 log prefix \"flood\" group 7 drop
    icmp type echo-request log prefix \"icmp\" group 7 drop
    icmpv6 type echo-request log prefix \"icmp\" group 7 drop
}
}";

fn two() -> (Cluster, Place, Place) {
    let mut cluster = Cluster::new(1);
    cluster.add(&[("a", 0), ("b", 0)]);
    cluster.serve_all(&[80, 81]);
    let [a, b] = ["a", "b"].map(|name| cluster.pod(name).place.clone());
    cluster.node(0).namespace.nft(RULES);
    (cluster, a, b)
}

fn open(cluster: &Cluster, options: &Options) -> Result<Reader, NflogError> {
    cluster.node(0).namespace.inside(|| Reader::open(options))
}

/// Sends datagrams that are dropped on the way.
fn flood(from: &Place, to: &Place, count: usize) {
    let socket = from
        .namespace
        .inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    for _ in 0..count {
        socket.send_to(b"x", to.at(false, 9999)).unwrap();
    }
}

#[test]
fn a_dropped_packet_of_each_protocol_is_read_with_who_to_whom() {
    let (cluster, a, b) = two();
    let mut reader = open(&cluster, &Options::new(7)).unwrap();
    let flows = [
        (Transport::Tcp, 80),
        (Transport::Tcp, 81),
        (Transport::Udp, 81),
        (Transport::Sctp, 81),
        (Transport::Icmp, 0),
    ];
    let table = Table::ask(&[a.clone(), b.clone()], &flows, &[false, true]);
    assert_eq!(
        table.wrong(|cell| cell.from == cell.to || cell.port == 80),
        [""; 0]
    );
    let mut records = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(600) {
        reader.read(&mut records).unwrap();
    }
    for v6 in [false, true] {
        for (from, to) in [(&a, &b), (&b, &a)] {
            let between = |record: &&Record| {
                let header = record.header.unwrap();
                (header.source, header.destination) == (from.address(v6), to.address(v6))
            };
            let found: Vec<&Record> = records.iter().filter(between).collect();
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let here = |record: &&&Record| matches!(record.header.unwrap().carries, Carries::Ports { protocol: seen, destination: 81, .. } if seen == protocol);
                let record = found.iter().find(here).unwrap();
                assert_eq!((&*record.prefix, record.hook), ("deny/web", 2));
                assert!(record.input.is_some() && record.output.is_some());
            }
            let kind = if v6 { 128 } else { 8 };
            let echo = |record: &&Record| {
                record.header.unwrap().carries == Carries::Icmp { kind, code: 0 }
            };
            assert_eq!(found.iter().copied().filter(echo).count(), 1);
            assert!(found.iter().all(|record| matches!(
                record.header.unwrap().carries,
                Carries::Icmp { .. }
                    | Carries::Ports {
                        destination: 81,
                        ..
                    }
            )));
        }
    }
    assert_eq!(reader.counts().lost.load(Ordering::Relaxed), 0);
}

#[test]
fn as_many_are_read_as_were_sent() {
    let (cluster, a, b) = two();
    let reader = open(&cluster, &Options::new(7)).unwrap();
    let counts = reader.counts();
    let stop = AtomicBool::new(false);
    let (sender, mut batches) = tokio::sync::mpsc::channel(1024);
    let read = std::thread::scope(|scope| {
        scope.spawn(|| reader.run(&sender, &stop).unwrap());
        flood(&a, &b, 50_000);
        let mut read = 0;
        let begun = Instant::now();
        while read < 50_000 && begun.elapsed() < Duration::from_secs(10) {
            match batches.try_recv() {
                Ok(batch) => read += batch.len(),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        stop.store(true, Ordering::Relaxed);
        read
    });
    assert_eq!(read, 50_000);
    assert_eq!(counts.read.load(Ordering::Relaxed), 50_000);
    assert_eq!(counts.lost.load(Ordering::Relaxed), 0);
    assert_eq!(counts.dropped.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_lost_is_counted() {
    let (cluster, a, b) = two();
    let options = Options {
        buffer: 16 << 10,
        ..Options::new(7)
    };
    let mut reader = open(&cluster, &options).unwrap();
    let mut records = Vec::new();
    // Nobody reads, and the buffer is small.
    flood(&a, &b, 5_000);
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline && (records.len() as u64 + reader_lost(&reader)) < 5_001 {
        reader.read(&mut records).unwrap();
        flood(&a, &b, 1);
    }
    let lost = reader_lost(&reader);
    assert!(lost > 1_000, "{lost} lost, {} read", records.len());
    assert!(records.len() as u64 + lost >= 5_001);
}

fn reader_lost(reader: &Reader) -> u64 {
    reader.counts().lost.load(Ordering::Relaxed)
}

#[test]
fn a_full_channel_drops_and_counts_and_a_group_has_one_reader() {
    let (cluster, a, b) = two();
    let reader = open(&cluster, &Options::new(7)).unwrap();
    let counts = reader.counts();
    let error = open(&cluster, &Options::new(7)).unwrap_err();
    assert_eq!(error.to_string(), "another process reads group 7 of NFLOG");
    let stop = AtomicBool::new(false);
    let (sender, batches) = tokio::sync::mpsc::channel(1);
    std::thread::scope(|scope| {
        scope.spawn(|| reader.run(&sender, &stop).unwrap());
        // In several batches, of which one fits.
        for _ in 0..50 {
            flood(&a, &b, 100);
            std::thread::sleep(Duration::from_millis(2));
        }
        let begun = Instant::now();
        while counts.read.load(Ordering::Relaxed) < 5_000
            && begun.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(counts.read.load(Ordering::Relaxed), 5_000);
    assert!(counts.dropped.load(Ordering::Relaxed) > 1_000);
    drop(batches);
    assert_eq!(
        crate::probe::ask_one(&a, b.at(false, 80), Transport::Tcp),
        Outcome::Answered
    );
}
