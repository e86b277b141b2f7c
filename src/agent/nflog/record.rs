//! A logged packet in the words of NFLOG. Reading is pure, and whatever the bytes are it ends without a panic.
//!
//! `linux/netfilter/nfnetlink_log.h`.

use std::time::Duration;

use super::Options;
use super::packet::{self, Header, Malformed};
use crate::agent::netlink::wire::{Message, Writer, array, flag, kind};

/// A packet that a rule logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the rule says of itself.
    pub prefix: String,
    /// The number of the hook: 1 is input, 2 forward, 3 output.
    pub hook: u8,
    /// The number of the interface that it came in by.
    pub input: Option<u32>,
    /// The number of the port of a bridge that it came in by, where it did.
    pub port: Option<u32>,
    /// The number of the interface that it would have left by.
    pub output: Option<u32>,
    /// When it arrived, since 1970, where the kernel says so.
    pub time: Option<Duration>,
    /// Who sent it to whom, or why that cannot be told.
    pub header: Result<Header, Malformed>,
    /// Its number among those of the group; a gap is a loss.
    pub number: Option<u32>,
}

/// The longest prefix that the kernel keeps.
const PREFIX: usize = 127;

/// The request that binds a group; messages of gathered packets are at most so many bytes.
pub(super) fn bind(options: &Options, most: u32, seq: u32) -> Option<Vec<u8>> {
    let hundredths = u32::try_from(options.linger.as_millis() / 10).unwrap_or(u32::MAX);
    let mut writer = Writer::default();
    let configure = (kind::LOG_CONFIGURE, flag::ACK);
    writer.message(configure, seq, (0, options.group), |w| {
        w.bytes(1, &[1]);
        let [a, b, c, d] = u32::from(options.copy).to_be_bytes();
        w.bytes(2, &[a, b, c, d, 2, 0]);
        w.u32(3, most);
        w.u32(4, hundredths.max(1));
        w.u32(5, options.gather);
        // Numbers of this group only: those of all groups have gaps where another process reads one.
        w.u16(6, 1);
    });
    writer.finish()
}

/// The packet of a message; none where it cannot be understood.
pub(in crate::agent) fn record(message: &Message<'_>) -> Option<Record> {
    let mut record = Record {
        prefix: String::new(),
        hook: 0,
        input: None,
        port: None,
        output: None,
        time: None,
        header: Err(Malformed::Short),
        number: None,
    };
    let mut said = false;
    for (kind, value) in message.attributes() {
        let number = || array(value).map(u32::from_be_bytes);
        match kind {
            1 => {
                record.hook = *value.get(2)?;
                said = true;
            }
            3 => {
                let seconds = u64::from_be_bytes(array(value)?);
                let micros = u64::from_be_bytes(array(value.get(8..)?)?);
                record.time =
                    Duration::from_secs(seconds).checked_add(Duration::from_micros(micros));
            }
            4 => record.input = number(),
            5 => record.output = number(),
            6 => record.port = number(),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::netlink::wire::Messages;

    /// A message as the kernel makes it.
    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.message((kind::LOG_PACKET, 0), 0, (0, 0), |w| {
            for (kind, value) in attributes {
                w.bytes(*kind, value);
            }
        });
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Vec<Option<Record>> {
        Messages(bytes).map(|message| record(&message)).collect()
    }

    #[test]
    fn several_packets_are_read_with_all_that_is_said() {
        let mut time = [0; 16];
        time[7] = 5;
        time[15] = 7;
        let first = message(&[
            (1, &[8, 0, 2, 0]),
            (3, &time),
            (4, &[0, 0, 0, 4]),
            (5, &[0, 0, 0, 5]),
            (6, &[0, 0, 0, 6]),
            (10, b"deny/web\0"),
            (12, &[0, 0, 0, 9]),
            (9, &[0x45]),
        ]);
        let (second, broken) = (message(&[(1, &[8, 0, 1, 0])]), message(&[(1, &[8])]));
        let read = read(&[first, second, broken].concat());
        let whole = Record {
            prefix: "deny/web".to_owned(),
            hook: 2,
            input: Some(4),
            port: Some(6),
            output: Some(5),
            time: Some(Duration::new(5, 7000)),
            header: Err(Malformed::Short),
            number: Some(9),
        };
        assert_eq!(read[0], Some(whole));
        assert_eq!(
            read[1].as_ref().map(|record| (record.hook, record.number)),
            Some((1, None))
        );
        assert_eq!((read.len(), &read[2]), (3, &None));
    }

    proptest! {
        #[test]
        fn random_bytes_end_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes);
        }

        #[test]
        fn a_spoilt_message_ends_without_a_panic(at in 0_usize..80, byte: u8, cut in 0_usize..100) {
            let mut whole = message(&[(1, &[8, 0, 2, 0]), (10, b"deny\0"), (3, &[0; 16]), (9, &[0x45; 30])]);
            whole[at] = byte;
            whole.truncate(cut);
            prop_assert!(read(&whole).len() <= 1);
        }
    }
}
