//! Who sent a packet to whom: the headers of IPv4 and IPv6 up to the ports. Pure; whatever the bytes are, it ends without
//! a panic, after a bounded number of headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netpol::Protocol;

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Its sender.
    pub source: IpAddr,
    /// Its receiver.
    pub destination: IpAddr,
    /// What it carries.
    pub carries: Carries,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carries {
    /// A protocol with ports.
    Ports {
        /// Which.
        protocol: Protocol,
        /// The sender's port.
        source: u16,
        /// The receiver's port.
        destination: u16,
    },
    /// A message of ICMP or of its successor, by the family of the addresses.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// A later fragment, or one too short to show its ports.
    Piece {
        /// The number of the protocol.
        protocol: u8,
    },
    /// Another protocol.
    Other {
        /// Its number.
        protocol: u8,
    },
}

/// Why a packet cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// It ends before its headers do.
    #[error("it ends within its headers")]
    Short,
    /// It is neither IPv4 nor IPv6.
    #[error("it is neither IPv4 nor IPv6")]
    Version,
    /// It has more extension headers than anybody needs.
    #[error("it has too many extension headers")]
    Extensions,
}

/// How many extension headers are passed over.
const EXTENSIONS: usize = 8;

/// Reads the headers of a packet.
pub fn parse(packet: &[u8]) -> Result<Header, Malformed> {
    match packet.first().ok_or(Malformed::Short)? >> 4 {
        4 => v4(packet),
        6 => v6(packet),
        _ => Err(Malformed::Version),
    }
}

/// RFC 791, section 3.1.
fn v4(packet: &[u8]) -> Result<Header, Malformed> {
    let fixed: [u8; 12] = part(packet, 0)?;
    let source: [u8; 4] = part(packet, 12)?;
    let destination: [u8; 4] = part(packet, 16)?;
    let [first, _, _, _, _, _, high, low, _, protocol, _, _] = fixed;
    let words = usize::from(first & 15);
    let rest = packet.get(words.saturating_mul(4)..).filter(|_| words >= 5);
    let later = u16::from_be_bytes([high & 0x1f, low]) != 0;
    Ok(Header {
        source: Ipv4Addr::from(source).into(),
        destination: Ipv4Addr::from(destination).into(),
        carries: carried(protocol, rest.ok_or(Malformed::Short)?, later),
    })
}

/// RFC 8200, sections 3 and 4.
fn v6(packet: &[u8]) -> Result<Header, Malformed> {
    let source: [u8; 16] = part(packet, 8)?;
    let destination: [u8; 16] = part(packet, 24)?;
    let mut next = *packet.get(6).ok_or(Malformed::Short)?;
    let mut rest = packet.get(40..).ok_or(Malformed::Short)?;
    let mut later = false;
    for _ in 0..EXTENSIONS {
        let [following, length]: [u8; 2] = match next {
            // Options of hops, routing, options of the destination, authentication, mobility, identity, shim.
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => part(rest, 0)?,
            protocol => {
                return Ok(Header {
                    source: Ipv6Addr::from(source).into(),
                    destination: Ipv6Addr::from(destination).into(),
                    carries: carried(protocol, rest, later),
                });
            }
        };
        let length = usize::from(length);
        let size = match next {
            44 => {
                let offset = u16::from_be_bytes(part(rest, 2)?) >> 3;
                later |= offset != 0;
                8
            }
            // RFC 4302: counted in words of four bytes, less two.
            51 => length.saturating_add(2).saturating_mul(4),
            _ => length.saturating_add(1).saturating_mul(8),
        };
        if later {
            return Ok(Header {
                source: Ipv6Addr::from(source).into(),
                destination: Ipv6Addr::from(destination).into(),
                carries: Carries::Piece {
                    protocol: following,
                },
            });
        }
        rest = rest.get(size..).ok_or(Malformed::Short)?;
        next = following;
    }
    Err(Malformed::Extensions)
}

fn carried(number: u8, rest: &[u8], later: bool) -> Carries {
    let known = match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    };
    let piece = Carries::Piece { protocol: number };
    match (known, rest) {
        _ if later => piece,
        (Some(protocol), [a, b, c, d, ..]) => Carries::Ports {
            protocol,
            source: u16::from_be_bytes([*a, *b]),
            destination: u16::from_be_bytes([*c, *d]),
        },
        (None, [kind, code, ..]) if matches!(number, 1 | 58) => Carries::Icmp {
            kind: *kind,
            code: *code,
        },
        (None, _) if !matches!(number, 1 | 58) => Carries::Other { protocol: number },
        _ => piece,
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    let end = at.saturating_add(N);
    let part = bytes.get(at..end).and_then(|part| part.try_into().ok());
    part.ok_or(Malformed::Short)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORTS: [u8; 4] = [0x1f, 0x90, 0, 80];

    fn v4_packet(protocol: u8, fragment: u16, options: usize, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20 + options * 4];
        packet[0] = 0x45 + u8::try_from(options).unwrap();
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = protocol;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(rest);
        packet
    }

    fn v6_packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[6] = next;
        packet[23] = 1;
        packet[39] = 2;
        packet.extend(rest);
        packet
    }

    fn carries(packet: &[u8]) -> Carries {
        parse(packet).unwrap().carries
    }

    fn ports(protocol: Protocol) -> Carries {
        Carries::Ports {
            protocol,
            source: 8080,
            destination: 80,
        }
    }

    #[test]
    fn each_protocol_shows_its_ports_or_its_kind() {
        let known = [
            (6, Protocol::Tcp),
            (17, Protocol::Udp),
            (132, Protocol::Sctp),
        ];
        for (number, protocol) in known {
            for options in [0, 10] {
                assert_eq!(
                    carries(&v4_packet(number, 0, options, &PORTS)),
                    ports(protocol)
                );
            }
            assert_eq!(carries(&v6_packet(number, &PORTS)), ports(protocol));
        }
        assert_eq!(
            carries(&v4_packet(1, 0, 0, &[8, 0])),
            Carries::Icmp { kind: 8, code: 0 }
        );
        assert_eq!(
            carries(&v6_packet(58, &[128, 1])),
            Carries::Icmp { kind: 128, code: 1 }
        );
        assert_eq!(
            carries(&v4_packet(47, 0, 0, &PORTS)),
            Carries::Other { protocol: 47 }
        );
        assert_eq!(
            carries(&v6_packet(59, &[])),
            Carries::Other { protocol: 59 }
        );
        let header = parse(&v6_packet(6, &PORTS)).unwrap();
        assert_eq!(
            (header.source, header.destination),
            ("::1".parse().unwrap(), "::2".parse().unwrap())
        );
        let header = parse(&v4_packet(6, 0, 0, &PORTS)).unwrap();
        assert_eq!(header.destination, "10.0.0.2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_fragment_shows_ports_only_where_it_is_the_first() {
        assert_eq!(
            carries(&v4_packet(17, 0x2000, 0, &PORTS)),
            ports(Protocol::Udp)
        );
        assert_eq!(
            carries(&v4_packet(17, 0x2001, 0, &PORTS)),
            Carries::Piece { protocol: 17 }
        );
        assert_eq!(
            carries(&v4_packet(17, 0x1000, 0, &PORTS)),
            Carries::Piece { protocol: 17 }
        );
        let fragment = |offset: u16| {
            let [high, low] = (offset << 3 | 1).to_be_bytes();
            [&[17, 0, high, low, 0, 0, 0, 7][..], &PORTS].concat()
        };
        assert_eq!(carries(&v6_packet(44, &fragment(0))), ports(Protocol::Udp));
        assert_eq!(
            carries(&v6_packet(44, &fragment(1))),
            Carries::Piece { protocol: 17 }
        );
        // Three bytes are no ports.
        assert_eq!(
            carries(&v4_packet(6, 0, 0, &PORTS[..3])),
            Carries::Piece { protocol: 6 }
        );
    }

    #[test]
    fn extension_headers_are_passed_over_to_a_bound() {
        // Options of hops (16 bytes), routing, authentication (12 bytes), options of the destination.
        let mut rest = vec![43, 1];
        rest.extend([0; 14]);
        rest.extend([51, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([132, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend(PORTS);
        assert_eq!(carries(&v6_packet(0, &rest)), ports(Protocol::Sctp));
        assert_eq!(parse(&v6_packet(0, &rest[..30])), Err(Malformed::Short));
        let many = [60, 0, 0, 0, 0, 0, 0, 0].repeat(EXTENSIONS + 1);
        assert_eq!(parse(&v6_packet(60, &many)), Err(Malformed::Extensions));
    }

    #[test]
    fn what_is_no_packet_says_why() {
        assert_eq!(parse(&[]), Err(Malformed::Short));
        assert_eq!(parse(&[0x45, 0]), Err(Malformed::Short));
        assert_eq!(parse(&[0x50; 60]), Err(Malformed::Version));
        let mut packet = v4_packet(6, 0, 0, &PORTS);
        packet[0] = 0x44;
        assert_eq!(parse(&packet), Err(Malformed::Short));
    }

    proptest! {
        #[test]
        fn random_bytes_end_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn random_headers_of_six_end_without_a_panic(next: u8, rest in proptest::collection::vec(0_u8..64, 0..200)) {
            let _ = parse(&v6_packet(next, &rest));
        }

        #[test]
        fn what_is_cut_is_short_or_a_piece_and_never_other_ports(cut in 0_usize..44) {
            let whole = v6_packet(6, &PORTS);
            match parse(&whole[..cut]) {
                Ok(header) => prop_assert_eq!(header.carries, Carries::Piece { protocol: 6 }),
                Err(why) => prop_assert_eq!(why, Malformed::Short),
            }
        }
    }
}
