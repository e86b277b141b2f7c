//! Addresses and address blocks, read as leniently as the API server reads the ones it has stored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::spans::Span;

/// The two kinds of IP addresses; a flow is wholly of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Family {
    /// Internet Protocol version 4.
    #[serde(rename = "IPv4")]
    V4,
    /// Internet Protocol version 6.
    #[serde(rename = "IPv6")]
    V6,
}

/// Why a text is no address or no address block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Neither an IPv4 nor an IPv6 address.
    #[error("must be an IPv4 or IPv6 address, such as 192.0.2.7 or 2001:db8::7")]
    Address,
    /// No block: the address is wrong or `/prefix` is missing.
    #[error("must be an address block, such as 192.0.2.0/24 or 2001:db8::/32")]
    Block,
    /// The number after `/` is missing, no number, or more bits than the address has.
    #[error("the number after '/' must be between 0 and {most}")]
    Prefix {
        /// The number of bits of the address.
        most: u8,
    },
}

impl Family {
    /// The number of the last address.
    pub(crate) fn last(self) -> u128 {
        match self {
            Self::V4 => u32::MAX.into(),
            Self::V6 => u128::MAX,
        }
    }

    /// Both families, in the order in which they are tried.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of an address block.
    pub fn of_block(block: &IpNet) -> Self {
        match block {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An address as a number of its family.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first and the last address of a block, as numbers.
pub(crate) fn ends(block: &IpNet) -> Span<u128> {
    (number(block.network()), number(block.broadcast()))
}

/// Reads an address as `ParseIPSloppy` of Kubernetes does: leading zeros in an IPv4 address are decimal, and an
/// IPv4 address written as an IPv6 one (`::ffff:10.0.0.1`) is the IPv4 address.
pub fn parse_address(text: &str) -> Result<IpAddr, NetError> {
    if let Some(address) = parse_v4(text) {
        return Ok(IpAddr::V4(address));
    }
    let address: Ipv6Addr = text.parse().map_err(|_| NetError::Address)?;
    Ok(IpAddr::V6(address).to_canonical())
}

/// Reads an address block as `ParseCIDRSloppy` of Kubernetes does; bits right of the prefix are cleared, since
/// stored objects may have them (`10.1.2.3/8`) and the blocks that they mean are the masked ones.
pub fn parse_block(text: &str) -> Result<IpNet, NetError> {
    let (address, prefix) = text.split_once('/').ok_or(NetError::Block)?;
    if let Some(address) = parse_v4(address) {
        let prefix = parse_prefix(prefix, 32)?;
        let block = Ipv4Net::new(address, prefix).map_err(|_| NetError::Block)?;
        return Ok(IpNet::V4(block.trunc()));
    }
    let address: Ipv6Addr = address.parse().map_err(|_| NetError::Block)?;
    let prefix = parse_prefix(prefix, 128)?;
    // The 96 bits before an IPv4 address in IPv6 writing.
    if let (Some(address), Some(prefix)) = (address.to_ipv4_mapped(), prefix.checked_sub(96)) {
        let block = Ipv4Net::new(address, prefix).map_err(|_| NetError::Block)?;
        return Ok(IpNet::V4(block.trunc()));
    }
    let block = Ipv6Net::new(address, prefix).map_err(|_| NetError::Block)?;
    Ok(IpNet::V6(block.trunc()))
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.');
    let mut octet = || parse_decimal(parts.next()?)?.try_into().ok();
    let address = Ipv4Addr::new(octet()?, octet()?, octet()?, octet()?);
    parts.next().is_none().then_some(address)
}

fn parse_prefix(text: &str, most: u8) -> Result<u8, NetError> {
    parse_decimal(text)
        .and_then(|number| u8::try_from(number).ok())
        .filter(|number| *number <= most)
        .ok_or(NetError::Prefix { most })
}

/// A number of digits only: no sign, no space; zeros in front mean nothing.
fn parse_decimal(text: &str) -> Option<u32> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> String {
        parse_block(text).map_or_else(|error| error.to_string(), |block| block.to_string())
    }

    #[test]
    fn blocks_are_masked_and_leading_zeros_are_decimal() {
        assert_eq!(block("10.0.0.0/8"), "10.0.0.0/8");
        assert_eq!(block("10.1.2.3/8"), "10.0.0.0/8");
        assert_eq!(block("010.001.002.003/032"), "10.1.2.3/32");
        assert_eq!(block("0.0.0.0/0"), "0.0.0.0/0");
        assert_eq!(block("2001:db8::1/32"), "2001:db8::/32");
        assert_eq!(block("::/0"), "::/0");
        assert_eq!(block("::ffff:10.1.2.3/104"), "10.0.0.0/8");
        assert_eq!(block("::ffff:10.1.2.3/90"), "::ffc0:0:0/90");
    }

    #[test]
    fn what_is_no_block_says_how_one_looks() {
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "10.0.0.256/8",
            "a/8",
            "fe80::1%eth0/64",
            "/8",
            "+1.0.0.0/8",
        ] {
            assert_eq!(parse_block(bad), Err(NetError::Block), "{bad}");
        }
        for bad in [
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0/256",
        ] {
            assert_eq!(
                parse_block(bad),
                Err(NetError::Prefix { most: 32 }),
                "{bad}"
            );
        }
        assert_eq!(parse_block("::/129"), Err(NetError::Prefix { most: 128 }));
    }

    #[test]
    fn addresses_are_canonical() {
        assert_eq!(parse_address("010.0.0.1"), Ok(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(
            parse_address("::ffff:10.0.0.1"),
            Ok(IpAddr::from([10, 0, 0, 1]))
        );
        assert_eq!(
            parse_address("2001:DB8::1").map(|address| address.to_string()),
            Ok("2001:db8::1".to_owned())
        );
        assert_eq!(parse_address("10.0.0"), Err(NetError::Address));
    }
}
