//! The expressions that rules are made of, to and from attributes (`NFTA_*` of `linux/netfilter/nf_tables.h`).
//!
//! Only what `rule.rs` makes is known here. Reading is strict: an attribute that is not expected makes an expression
//! unknown, so that nothing that somebody else put into a rule is overlooked.

use crate::agent::netlink::wire::{Attributes, Writer, text};

/// What is read of a packet besides its bytes: `NFT_META_IIFNAME`, `NFT_META_NFPROTO`,
/// `NFT_META_L4PROTO`, `NFT_META_IIFKIND`.
pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_NFPROTO: u32 = 15;
pub(super) const META_L4PROTO: u32 = 16;
pub(super) const META_IIFKIND: u32 = 26;

/// Where the bytes of a packet are counted from: `NFT_PAYLOAD_LL_HEADER`, in which a tag that was taken off is seen where it
/// was, `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
pub(super) const LINK: u32 = 0;
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;

/// The first register, which has room for 16 bytes.
pub(super) const FIRST: u32 = 1;

/// The register of verdicts.
const VERDICT_REGISTER: u32 = 0;

/// `NFT_OBJECT_COUNTER`.
pub(super) const COUNTER: u32 = 1;

const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    AtMost,
    AtLeast,
}

/// A verdict of the kernel, with the chain where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) code: i32,
    pub(super) chain: Option<String>,
}

/// The codes of verdicts.
pub(super) const DROP: i32 = 0;
pub(super) const ACCEPT: i32 = 1;
pub(super) const JUMP: i32 = -3;
pub(super) const GOTO: i32 = -4;
pub(super) const RETURN: i32 = -5;

/// One expression. Registers are numbers as the kernel gives them back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads a key of the packet's `meta`.
    Meta { key: u32, to: u32 },
    /// Loads bytes of the packet.
    Payload {
        base: u32,
        offset: u32,
        length: u32,
        to: u32,
    },
    /// Loads the state of the connection.
    State { to: u32 },
    /// Loads which way of the connection the packet goes; ends the rule where it is of none.
    Way { to: u32 },
    /// Keeps only some bits of a register, in the register.
    Mask { register: u32, mask: Vec<u8> },
    /// Ends the rule unless the comparison holds.
    Compare {
        register: u32,
        how: Comparison,
        with: Vec<u8>,
    },
    /// Ends the rule if the register is from the first to the last.
    Outside {
        register: u32,
        first: Vec<u8>,
        last: Vec<u8>,
    },
    /// Ends the rule unless the register is in a set; a verdict is taken from there where it is a map.
    Lookup {
        set: String,
        register: u32,
        is_map: bool,
    },
    /// Counts with a counter of the table.
    Count { name: String },
    /// Ends the rule for more than so many packets a second, after a burst.
    Limit { rate: u64, burst: u32 },
    /// Sends the packet's head to a listener.
    Log {
        group: u16,
        prefix: Option<String>,
        snaplen: u32,
        queue: u16,
    },
    /// Gives a verdict.
    Verdict(Code),
}

impl Expression {
    /// Writes it as an element of a list.
    pub(super) fn write(&self, w: &mut Writer) {
        w.nest(LIST_ELEM, |w| {
            w.text(1, self.name());
            w.nest(2, |w| self.write_data(w));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::State { .. } | Self::Way { .. } => "ct",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Outside { .. } => "range",
            Self::Lookup { .. } => "lookup",
            Self::Count { .. } => "objref",
            Self::Limit { .. } => "limit",
            Self::Log { .. } => "log",
            Self::Verdict(_) => "immediate",
        }
    }

    fn write_data(&self, w: &mut Writer) {
        match self {
            Self::Meta { key, to } => {
                w.u32(2, *key);
                w.u32(1, *to);
            }
            Self::Payload {
                base,
                offset,
                length,
                to,
            } => {
                w.u32(1, *to);
                w.u32(2, *base);
                w.u32(3, *offset);
                w.u32(4, *length);
            }
            Self::State { to } => {
                w.u32(2, CT_STATE);
                w.u32(1, *to);
            }
            Self::Way { to } => {
                w.u32(2, CT_DIRECTION);
                w.u32(1, *to);
            }
            Self::Mask { register, mask } => {
                w.u32(1, *register);
                w.u32(2, *register);
                w.u32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                w.nest(4, |w| w.bytes(DATA_VALUE, mask));
                w.nest(5, |w| w.bytes(DATA_VALUE, &vec![0; mask.len()]));
            }
            Self::Compare {
                register,
                how,
                with,
            } => {
                w.u32(1, *register);
                w.u32(2, how.number());
                w.nest(3, |w| w.bytes(DATA_VALUE, with));
            }
            Self::Outside {
                register,
                first,
                last,
            } => {
                w.u32(1, *register);
                w.u32(2, Comparison::NotEqual.number());
                w.nest(3, |w| w.bytes(DATA_VALUE, first));
                w.nest(4, |w| w.bytes(DATA_VALUE, last));
            }
            Self::Lookup {
                set,
                register,
                is_map,
            } => {
                w.text(1, set);
                w.u32(2, *register);
                if *is_map {
                    w.u32(3, VERDICT_REGISTER);
                }
            }
            Self::Count { name } => {
                w.u32(1, COUNTER);
                w.text(2, name);
            }
            Self::Limit { rate, burst } => {
                w.u64(1, *rate);
                w.u64(2, 1); // in so many seconds
                w.u32(3, *burst);
                w.u32(4, 0); // packets
                w.u32(5, 0); // up to, not above
            }
            Self::Log {
                group,
                prefix,
                snaplen,
                queue,
            } => {
                w.u16(1, *group);
                if let Some(prefix) = prefix {
                    w.text(2, prefix);
                }
                w.u32(3, *snaplen);
                w.u16(4, *queue);
            }
            Self::Verdict(code) => {
                w.u32(1, VERDICT_REGISTER);
                w.nest(2, |w| code.write(w));
            }
        }
    }

    /// Reads an element of a list; none for what is not of our making.
    pub(super) fn read(element: Attributes<'_>) -> Option<Self> {
        let name = element.text(1)?;
        let data = element.nested(2)?;
        // Attributes of numbers up to `known` are looked at; what else is there changes the meaning.
        let known = |known: &[u16]| data.into_iter().all(|(kind, _)| known.contains(&kind));
        match name {
            "meta" if known(&[1, 2]) => Some(Self::Meta {
                key: data.u32(2)?,
                to: data.u32(1)?,
            }),
            "payload" if known(&[1, 2, 3, 4]) => Some(Self::Payload {
                to: data.u32(1)?,
                base: data.u32(2)?,
                offset: data.u32(3)?,
                length: data.u32(4)?,
            }),
            "ct" if known(&[1, 2]) => {
                let to = data.u32(1)?;
                match data.u32(2)? {
                    CT_STATE => Some(Self::State { to }),
                    CT_DIRECTION => Some(Self::Way { to }),
                    _ => None,
                }
            }
            "bitwise" if known(&[1, 2, 3, 4, 5, 6]) && data.u32(6).unwrap_or(0) == 0 => {
                let (register, mask) = (data.u32(1)?, value(data, 4)?);
                let is_plain = data.u32(2)? == register
                    && data.u32(3).map(usize::try_from) == Some(Ok(mask.len()))
                    && value(data, 5)?.iter().all(|byte| *byte == 0);
                is_plain.then_some(Self::Mask { register, mask })
            }
            "cmp" if known(&[1, 2, 3]) => Some(Self::Compare {
                register: data.u32(1)?,
                how: Comparison::of(data.u32(2)?)?,
                with: value(data, 3)?,
            }),
            "range" if known(&[1, 2, 3, 4]) => {
                let is_outside = Comparison::of(data.u32(2)?)? == Comparison::NotEqual;
                is_outside.then_some(Self::Outside {
                    register: data.u32(1)?,
                    first: value(data, 3)?,
                    last: value(data, 4)?,
                })
            }
            "lookup" if known(&[1, 2, 3, 5]) => {
                let to = data.u32(3);
                // A flag asks it the other way round.
                let is_plain = data.u32(5).unwrap_or(0) == 0;
                let is_known = to.is_none_or(|to| to == VERDICT_REGISTER) && is_plain;
                is_known.then_some(Self::Lookup {
                    set: data.text(1)?.to_owned(),
                    register: data.u32(2)?,
                    is_map: to.is_some(),
                })
            }
            "objref" if known(&[1, 2]) && data.u32(1)? == COUNTER => Some(Self::Count {
                name: data.text(2)?.to_owned(),
            }),
            "limit" if known(&[1, 2, 3, 4, 5, 6]) => {
                let is_plain = data.u64(2)? == 1
                    && data.u32(4).unwrap_or(0) == 0
                    && data.u32(5).unwrap_or(0) == 0;
                is_plain.then_some(Self::Limit {
                    rate: data.u64(1)?,
                    burst: data.u32(3)?,
                })
            }
            "log" if known(&[1, 2, 3, 4]) => Some(Self::Log {
                group: data.u16(1)?,
                prefix: data.text(2).map(str::to_owned),
                snaplen: data.u32(3)?,
                queue: data.u16(4)?,
            }),
            "immediate" if known(&[1, 2]) && data.u32(1)? == VERDICT_REGISTER => {
                Code::read(data.nested(2)?).map(Self::Verdict)
            }
            _ => None,
        }
    }
}

impl Comparison {
    fn number(self) -> u32 {
        match self {
            Self::Equal => 0,
            Self::NotEqual => 1,
            Self::AtMost => 3,
            Self::AtLeast => 5,
        }
    }

    fn of(number: u32) -> Option<Self> {
        [Self::Equal, Self::NotEqual, Self::AtMost, Self::AtLeast]
            .into_iter()
            .find(|how| how.number() == number)
    }
}

impl Code {
    /// A verdict that leads nowhere.
    pub(super) fn plain(code: i32) -> Self {
        Self { code, chain: None }
    }

    /// Writes it as the data of an expression or of an element.
    pub(super) fn write(&self, w: &mut Writer) {
        write_verdict(self.code, self.chain.as_deref(), w);
    }

    /// Reads the data of an expression or of an element.
    pub(super) fn read(data: Attributes<'_>) -> Option<Self> {
        let verdict = data.nested(DATA_VERDICT)?;
        Some(Self {
            code: verdict.i32(1)?,
            chain: verdict.find(2).and_then(text).map(str::to_owned),
        })
    }
}

/// Writes a verdict as data.
pub(super) fn write_verdict(code: i32, chain: Option<&str>, w: &mut Writer) {
    w.nest(DATA_VERDICT, |w| {
        w.i32(1, code);
        if let Some(chain) = chain {
            w.text(2, chain);
        }
    });
}

fn value(data: Attributes<'_>, kind: u16) -> Option<Vec<u8>> {
    Some(data.nested(kind)?.find(DATA_VALUE)?.to_vec())
}
