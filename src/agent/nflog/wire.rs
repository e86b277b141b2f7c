//! The messages of NFLOG, in bytes. Reading them is pure, and whatever the bytes are it ends without a panic.
//!
//! `linux/netfilter/nfnetlink_log.h`: a header of netlink (16 bytes, in the order of the machine), one of nfnetlink (4
//! bytes) and attributes, whose values are in the order of the network.

use std::time::Duration;

use super::Options;
use super::packet::{self, Header, Malformed};

/// A packet that a rule logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the rule says of itself.
    pub prefix: String,
    /// The number of the hook: 1 is input, 2 forward, 3 output.
    pub hook: u8,
    /// The number of the interface that it came in by.
    pub input: Option<u32>,
    /// The number of the interface that it would have left by.
    pub output: Option<u32>,
    /// When it arrived, since 1970, where the kernel says so.
    pub time: Option<Duration>,
    /// Who sent it to whom, or why that cannot be told.
    pub header: Result<Header, Malformed>,
    /// Its number among those of the group; a gap is a loss.
    pub number: Option<u32>,
}

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 2;
const PACKET: u16 = 4 << 8;
const CONFIGURE: u16 = (4 << 8) | 1;
const HEADER: usize = 16;
const FAMILY: usize = 4;

/// The longest prefix that the kernel keeps.
const PREFIX: usize = 127;

/// The request that binds a group.
pub(super) fn bind(options: &Options, most: u32) -> Vec<u8> {
    let hundredths = u32::try_from(options.linger.as_millis() / 10).unwrap_or(u32::MAX);
    let mut body = vec![0, 0];
    body.extend(options.group.to_be_bytes());
    attribute(&mut body, 1, &[1]);
    let [a, b, c, d] = u32::from(options.copy).to_be_bytes();
    attribute(&mut body, 2, &[a, b, c, d, 2, 0]);
    attribute(&mut body, 3, &most.to_be_bytes());
    attribute(&mut body, 4, &hundredths.max(1).to_be_bytes());
    attribute(&mut body, 5, &options.gather.to_be_bytes());
    // Numbers of this group only: those of all groups have gaps where another process reads one.
    attribute(&mut body, 6, &1_u16.to_be_bytes());
    let length = u32::try_from(body.len().saturating_add(HEADER)).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER.saturating_add(body.len()));
    message.extend(length.to_ne_bytes());
    message.extend(CONFIGURE.to_ne_bytes());
    message.extend((REQUEST | ACKNOWLEDGE).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    while !body.len().is_multiple_of(4) {
        body.push(0);
    }
}

/// The error of an answer, 0 for none; nothing where there is no answer in the message.
pub(super) fn answer(message: &[u8]) -> Option<i32> {
    messages(message).find_map(|(kind, body)| match kind {
        ERROR => Some(i32::from_ne_bytes(part(body, 0)?).saturating_neg()),
        _ => None,
    })
}

/// Appends the packets of a message and gives the number of those that cannot be understood.
pub(super) fn records(message: &[u8], records: &mut Vec<Record>) -> u64 {
    let mut broken = 0;
    for (kind, body) in messages(message) {
        if kind == PACKET {
            match record(body) {
                Some(record) => records.push(record),
                None => broken += 1,
            }
        }
    }
    broken
}

fn record(body: &[u8]) -> Option<Record> {
    let mut record = Record {
        prefix: String::new(),
        hook: 0,
        input: None,
        output: None,
        time: None,
        header: Err(Malformed::Short),
        number: None,
    };
    let mut said = false;
    for (kind, value) in attributes(body.get(FAMILY..)?) {
        let number = || part(value, 0).map(u32::from_be_bytes);
        match kind {
            1 => {
                record.hook = *value.get(2)?;
                said = true;
            }
            3 => {
                let seconds = u64::from_be_bytes(part(value, 0)?);
                let micros = u64::from_be_bytes(part(value, 8)?);
                record.time =
                    Duration::from_secs(seconds).checked_add(Duration::from_micros(micros));
            }
            4 => record.input = number(),
            5 => record.output = number(),
            9 => record.header = packet::parse(value),
            10 => {
                let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
                let text = text.get(..PREFIX).unwrap_or(text);
                record.prefix = String::from_utf8_lossy(text).into_owned();
            }
            12 => record.number = number(),
            _ => {}
        }
    }
    said.then_some(record)
}

/// The messages of netlink in what was received: kind and body.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(part(bytes, 0)?)).ok()?;
        let kind = u16::from_ne_bytes(part(bytes, 4)?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes
            .get(length.checked_next_multiple_of(4)?..)
            .unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes of a message: kind and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(part(bytes, 0)?));
        // The two highest bits tell of the value's form.
        let kind = u16::from_ne_bytes(part(bytes, 2)?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes
            .get(length.checked_next_multiple_of(4)?..)
            .unwrap_or_default();
        Some((kind, value))
    })
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message as the kernel makes it.
    fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; HEADER + FAMILY];
        for (kind, value) in attributes {
            attribute(&mut body, *kind, value);
        }
        let length = u32::try_from(body.len()).unwrap();
        body[..4].copy_from_slice(&length.to_ne_bytes());
        body[4..6].copy_from_slice(&kind.to_ne_bytes());
        body
    }

    #[test]
    fn several_packets_in_one_message_are_read_with_all_that_is_said() {
        let mut time = [0; 16];
        time[7] = 5;
        time[15] = 7;
        let first = message(
            PACKET,
            &[
                (1, &[8, 0, 2, 0]),
                (3, &time),
                (4, &[0, 0, 0, 4]),
                (5, &[0, 0, 0, 5]),
                (10, b"deny/web\0"),
                (12, &[0, 0, 0, 9]),
                (9, &[0x45]),
            ],
        );
        let second = message(PACKET, &[(1, &[8, 0, 1, 0])]);
        let other = message(CONFIGURE, &[]);
        let broken = message(PACKET, &[(1, &[8])]);
        let mut read = Vec::new();
        assert_eq!(
            records(&[first, other, second, broken].concat(), &mut read),
            1
        );
        assert_eq!(read.len(), 2);
        let Record {
            prefix,
            hook,
            input,
            output,
            time,
            header,
            number,
        } = read.remove(0);
        assert_eq!(
            (&*prefix, hook, input, output),
            ("deny/web", 2, Some(4), Some(5))
        );
        assert_eq!(time, Some(Duration::new(5, 7000)));
        assert_eq!((header, number), (Err(Malformed::Short), Some(9)));
        assert_eq!((read[0].hook, read[0].number), (1, None));
    }

    #[test]
    fn an_answer_is_told_from_a_packet() {
        let mut refusal = message(ERROR, &[]);
        refusal[16..20].copy_from_slice(&(-16_i32).to_ne_bytes());
        let packet = message(PACKET, &[(1, &[8, 0, 2, 0])]);
        assert_eq!(answer(&packet), None);
        assert_eq!(answer(&[packet, refusal].concat()), Some(16));
        assert_eq!(answer(&message(ERROR, &[])), Some(0));
    }

    proptest! {
        #[test]
        fn random_bytes_end_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            records(&bytes, &mut Vec::new());
            answer(&bytes);
            record(&bytes);
        }

        #[test]
        fn a_spoilt_message_ends_without_a_panic(at in 0_usize..80, byte: u8, cut in 0_usize..100) {
            let mut whole = message(PACKET, &[(1, &[8, 0, 2, 0]), (10, b"deny\0"), (3, &[0; 16]), (9, &[0x45; 30])]);
            whole[at] = byte;
            whole.truncate(cut);
            let mut read = Vec::new();
            records(&whole, &mut read);
            prop_assert!(read.len() <= 1);
        }
    }
}
