//! Netlink messages and attributes as bytes, written and read (`man 7 netlink`, `linux/netlink.h`).
//!
//! Numbers of `nf_tables` are big-endian, headers are in the machine's order. The numbers of the kernel's interface are
//! from `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`.

/// `NFPROTO_INET`, `NFPROTO_BRIDGE`.
pub(crate) const INET: u8 = 1;
pub(crate) const BRIDGE: u8 = 7;

/// Flags of messages.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
    /// In an answer: its request comes without the payload.
    pub(crate) const CAPPED: u16 = 0x100;
    /// In an answer: attributes follow.
    pub(crate) const ACK_TLVS: u16 = 0x200;
    /// In an answer: what is dumped changed meanwhile.
    pub(crate) const DUMP_INTR: u16 = 0x10;
}

/// Types of messages.
pub(crate) mod kind {
    pub(crate) const ERROR: u16 = 2;
    pub(crate) const DONE: u16 = 3;
    pub(crate) const BATCH_BEGIN: u16 = 0x10;
    pub(crate) const BATCH_END: u16 = 0x11;
    /// Of NFLOG, whose subsystem is 4.
    pub(crate) const LOG_PACKET: u16 = 4 << 8;
    pub(crate) const LOG_CONFIGURE: u16 = (4 << 8) + 1;
    /// Of the table of connections, whose subsystem is 1.
    pub(crate) const CT_NEW: u16 = 1 << 8;
    pub(crate) const CT_GET: u16 = (1 << 8) + 1;
    pub(crate) const CT_DELETE: u16 = (1 << 8) + 2;
    /// The subsystem of `nf_tables`, as the upper byte of a type.
    pub(crate) const NFTABLES: u16 = 10 << 8;
    pub(crate) const NEWTABLE: u16 = NFTABLES;
    pub(crate) const GETTABLE: u16 = NFTABLES + 1;
    pub(crate) const DELTABLE: u16 = NFTABLES + 2;
    pub(crate) const NEWCHAIN: u16 = NFTABLES + 3;
    pub(crate) const GETCHAIN: u16 = NFTABLES + 4;
    pub(crate) const DELCHAIN: u16 = NFTABLES + 5;
    pub(crate) const NEWRULE: u16 = NFTABLES + 6;
    pub(crate) const GETRULE: u16 = NFTABLES + 7;
    pub(crate) const DELRULE: u16 = NFTABLES + 8;
    pub(crate) const NEWSET: u16 = NFTABLES + 9;
    pub(crate) const GETSET: u16 = NFTABLES + 10;
    pub(crate) const DELSET: u16 = NFTABLES + 11;
    pub(crate) const NEWSETELEM: u16 = NFTABLES + 12;
    pub(crate) const GETSETELEM: u16 = NFTABLES + 13;
    pub(crate) const DELSETELEM: u16 = NFTABLES + 14;
    pub(crate) const NEWGEN: u16 = NFTABLES + 15;
    pub(crate) const GETGEN: u16 = NFTABLES + 16;
    pub(crate) const NEWOBJ: u16 = NFTABLES + 18;
    pub(crate) const GETOBJ: u16 = NFTABLES + 19;
    pub(crate) const DELOBJ: u16 = NFTABLES + 20;
}

/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// The bits of an attribute's type that are its type.
const TYPE: u16 = 0x3fff;

/// Messages, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    /// Something was longer than its length can say.
    is_broken: bool,
}

impl Writer {
    /// The bytes; none where something did not fit.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        (!self.is_broken).then_some(self.bytes)
    }

    /// How many bytes there are by now.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A message with its nfnetlink header. The last field of that is big-endian, and a resource only in a batch's ends.
    pub(crate) fn message(
        &mut self,
        (kind, flags): (u16, u16),
        seq: u32,
        (family, resource): (u8, u16),
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        body(self);
        match u32::try_from(self.bytes.len().saturating_sub(start)) {
            Ok(length) => self.put(start, &length.to_ne_bytes()),
            Err(_) => self.is_broken = true,
        }
    }

    /// Adds flags to the message that begins there.
    pub(crate) fn add_flags(&mut self, start: usize, flags: u16) {
        let place = start.saturating_add(6);
        if let Some(old) = self.bytes.get(place..).and_then(array) {
            let flags = u16::from_ne_bytes(old) | flags;
            self.put(place, &flags.to_ne_bytes());
        }
    }

    /// An attribute.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |w| w.raw(value));
    }

    /// A text with a zero at its end.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |w| {
            w.bytes.extend_from_slice(value.as_bytes());
            w.bytes.push(0);
        });
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, kind: u16, value: i32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, body);
    }

    /// Bytes as they are, in an attribute.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An attribute whose value is written by a function.
    pub(crate) fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        match u16::try_from(self.bytes.len().saturating_sub(start)) {
            Ok(length) => self.put(start, &length.to_ne_bytes()),
            Err(_) => self.is_broken = true,
        }
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at.saturating_add(value.len())) {
            place.copy_from_slice(value);
        }
    }
}

/// A message that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// The socket that it is about: who asked, or who made the change that is told.
    pub(crate) port: u32,
    /// All behind netlink's header.
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind nfnetlink's header.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(4..).unwrap_or_default())
    }

    /// The family of nfnetlink's header.
    pub(crate) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or_default()
    }

    /// The errno of an answer (0 is none), as a positive number; none where this is no answer.
    pub(crate) fn error(&self) -> Option<i32> {
        let code = match self.kind {
            kind::ERROR | kind::DONE => i32::from_ne_bytes(array(self.payload)?),
            _ => return None,
        };
        Some(code.saturating_neg())
    }

    /// Where in the request the kernel saw what it refuses, in bytes from the request's start.
    pub(crate) fn offset(&self) -> Option<usize> {
        const OFFSET: u16 = 2;
        if self.kind != kind::ERROR || self.flags & flag::ACK_TLVS == 0 {
            return None;
        }
        // An error number, then the request's header, with its payload unless that was cut off.
        let request = match self.flags & flag::CAPPED {
            0 => usize::try_from(u32::from_ne_bytes(array(self.payload.get(4..)?)?)).ok()?,
            _ => 16,
        };
        let tlvs = Attributes(self.payload.get(4..)?.get(request.next_multiple_of(4)..)?);
        let offset = tlvs.find(OFFSET)?;
        usize::try_from(u32::from_ne_bytes(array(offset)?)).ok()
    }
}

/// The messages of what was received at once.
#[derive(Clone, Debug)]
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32::from_ne_bytes(array(self.0)?)).ok()?;
        let message = self.0.get(..length).filter(|all| all.len() >= 16)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes(array(message.get(4..)?)?),
            flags: u16::from_ne_bytes(array(message.get(6..)?)?),
            seq: u32::from_ne_bytes(array(message.get(8..)?)?),
            port: u32::from_ne_bytes(array(message.get(12..)?)?),
            payload: message.get(16..)?,
        })
    }
}

/// Attributes, one after the other: type and value of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

#[expect(
    clippy::copy_iterator,
    reason = "they are looked through again and again, each time from the start"
)]
impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(array(self.0)?));
        let kind = u16::from_ne_bytes(array(self.0.get(2..)?)?) & TYPE;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of the first attribute of a type.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes in the first one of a type.
    pub(crate) fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(Attributes)
    }

    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        text(self.find(kind)?)
    }

    pub(crate) fn u16(self, kind: u16) -> Option<u16> {
        array(self.find(kind)?).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        array(self.find(kind)?).map(u32::from_be_bytes)
    }

    pub(crate) fn i32(self, kind: u16) -> Option<i32> {
        array(self.find(kind)?).map(i32::from_be_bytes)
    }

    pub(crate) fn u64(self, kind: u16) -> Option<u64> {
        array(self.find(kind)?).map(u64::from_be_bytes)
    }
}

/// A text up to its zero.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|byte| *byte == 0);
    let value = end.map_or(Some(value), |end| value.get(..end))?;
    std::str::from_utf8(value).ok()
}

/// The first bytes of something.
pub(crate) fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.message((kind::NEWRULE, flag::ACK), 7, (INET, 0), |w| {
            w.text(1, "abcd");
            w.nest(2, |w| {
                w.u32(3, 9);
                w.bytes(4, &[1, 2, 3]);
            });
            w.u16(5, 6);
        });
        let bytes = writer.finish().expect("short");
        assert!(bytes.len().is_multiple_of(4));
        let messages: Vec<_> = Messages(&bytes).collect();
        let [message] = messages.as_slice() else {
            panic!("{messages:?}");
        };
        assert_eq!(
            (message.kind, message.flags, message.seq),
            (kind::NEWRULE, flag::ACK | flag::REQUEST, 7)
        );
        let attributes = message.attributes();
        assert_eq!(attributes.text(1), Some("abcd"));
        let inner = attributes.nested(2).expect("nested");
        assert_eq!(inner.u32(3), Some(9));
        assert_eq!(inner.find(4), Some(&[1, 2, 3][..]));
        assert_eq!(attributes.u16(5), Some(6));
        assert_eq!(attributes.find(8), None);
    }

    #[test]
    fn what_does_not_fit_is_never_sent() {
        let mut writer = Writer::default();
        writer.bytes(1, &vec![0; 65_532]);
        assert!(writer.finish().is_none());
        let mut writer = Writer::default();
        writer.bytes(1, &vec![0; 65_531]);
        assert!(writer.finish().is_some());
    }

    #[test]
    fn nonsense_ends_the_reading() {
        for bytes in [&[1, 0, 0, 0][..], &[0; 16], &[255; 40], &[20, 0, 0, 0, 1]] {
            assert_eq!(Messages(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(Attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes(&[9, 0, 1, 0, 1]).count(), 0);
    }
}
