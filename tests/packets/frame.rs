//! Frames as they are, byte by byte, as a pod makes them that may open raw sockets.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::cluster::Place;

/// Everyone on a link.
pub(crate) const ALL: &str = "ff:ff:ff:ff:ff:ff";
/// The type of a frame that carries IPv4 (RFC 894).
pub(crate) const IPV4: u16 = 0x0800;
/// That of one that carries IPv6 (RFC 2464).
pub(crate) const IPV6: u16 = 0x86dd;

/// A frame of Ethernet, to and from hardware addresses.
pub(crate) fn ethernet(to: &str, from: &str, kind: u16, content: &[u8]) -> Vec<u8> {
    tagged(to, from, &[], kind, content)
}

/// The same with tags of no VLAN before it, by their types (IEEE 802.1Q).
pub(crate) fn tagged(to: &str, from: &str, tags: &[u16], kind: u16, content: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].map(mac).concat();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 0]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(content);
    frame
}

fn mac(text: &str) -> Vec<u8> {
    let digits = text.split(':');
    digits
        .map(|two| u8::from_str_radix(two, 16).unwrap())
        .collect()
}

/// A packet of UDP.
pub(crate) fn packet(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut datagram = Vec::new();
    let length: u16 = 8 + 3;
    for word in [4000, port, length, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(b"boo");
    let mut header = vec![0x45, 0, 0, 20 + length as u8, 0, 1, 0, 0, 64, 17, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, datagram].concat()
}

/// A message of `ICMPv6` that came from no other link: its type, and what is behind its checksum.
pub(crate) fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, content: &[u8]) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    let length = 4 + content.len() as u16;
    let ends = [from.octets(), to.octets()].concat();
    let mut message = [&[kind, 0, 0, 0], content].concat();
    let [high, low] = length.to_be_bytes();
    let sum = checksum(&[&ends[..], &[0, 0, high, low, 0, 0, 0, ICMPV6], &message].concat());
    message[2..4].copy_from_slice(&sum);
    [
        &[0x60, 0, 0, 0, high, low, ICMPV6, 255],
        &ends[..],
        &message,
    ]
    .concat()
}

/// The sum of the internet (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Sends a frame as it is.
pub(crate) fn send(from: &Place, frame: &[u8]) {
    const SEND: &str = "socket(S, 17, 3, 0) and bind(S, pack('S n l x12', 17, 0x0800, shift)) \
                        and syswrite(S, pack('H*', shift)) or die $!";
    let number = interface(from).to_string();
    let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    from.namespace
        .run("perl", &["-e", SEND, &number, &digits], "");
}

/// The number of the interface that a place has.
pub(crate) fn interface(of: &Place) -> u32 {
    let shown = of.namespace.run("ip", &["-o", "link", "show", "eth0"], "");
    shown.split(':').next().unwrap().parse().unwrap()
}
