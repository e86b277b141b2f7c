//! The `net.cidr_*` builtins as the Open Policy Agent documents them, for IPv4 and IPv6.
//!
//! <https://www.openpolicyagent.org/docs/policy-reference#builtin-net>

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use regorus::Value;

use super::{TooMuch, text};
use crate::rego::value::{array, string};

/// Most addresses that `net.cidr_expand` lists: those of an IPv4 /16.
pub(super) const MAX_EXPANDED: u128 = 1 << 16;

/// `net.cidr_contains(cidr, cidr_or_ip)`: true when every address of the second lies in the first.
pub(super) fn contains(args: &[Value]) -> Result<Value> {
    let [outer, inner] = args else {
        bail!("expects 2 arguments")
    };
    Ok(Value::Bool(
        block(text(outer)?)?.contains(&block_or_address(text(inner)?)?),
    ))
}

/// `net.cidr_overlap(cidr, ip)`: the old name of `net.cidr_contains`.
pub(super) fn overlap(args: &[Value]) -> Result<Value> {
    contains(args)
}

/// `net.cidr_intersects(cidr1, cidr2)`: true when an address lies in both.
pub(super) fn intersects(args: &[Value]) -> Result<Value> {
    let [one, other] = args else {
        bail!("expects 2 arguments")
    };
    let (one, other) = (block(text(one)?)?, block(text(other)?)?);
    Ok(Value::Bool(one.contains(&other) || other.contains(&one)))
}

/// `net.cidr_contains_matches(cidrs, cidrs_or_ips)`: the pairs of places of which the first contains the second.
///
/// Each argument is a string, or a collection of strings or of arrays that begin with one. A place is the string
/// itself, the index in an array, the key in an object, or the element of a set.
pub(super) fn contains_matches(args: &[Value]) -> Result<Value> {
    let [outer, inner] = args else {
        bail!("expects 2 arguments")
    };
    let outer: Vec<_> = placed(outer)?
        .into_iter()
        .map(|(cidr, place)| Ok((block(&cidr)?, place)))
        .collect::<Result<_>>()?;
    let inner: Vec<_> = placed(inner)?
        .into_iter()
        .map(|(cidr, place)| Ok((block_or_address(&cidr)?, place)))
        .collect::<Result<_>>()?;
    if outer.len().saturating_mul(inner.len()) > crate::rego::value::MAX_NODES {
        return Err(TooMuch(format!(
            "too many pairs to compare ({} and {})",
            outer.len(),
            inner.len()
        ))
        .into());
    }
    let mut matches = BTreeSet::new();
    for (cidr, place) in &outer {
        for (part, part_place) in &inner {
            if cidr.contains(part) {
                matches.insert(array([place.clone(), part_place.clone()]));
            }
        }
    }
    Ok(Value::from(matches))
}

/// `net.cidr_merge(addresses)`: the smallest set of blocks that holds the same addresses.
pub(super) fn merge(args: &[Value]) -> Result<Value> {
    let [addresses] = args else {
        bail!("expects 1 argument")
    };
    let blocks = match addresses {
        Value::Array(items) => items
            .iter()
            .map(|item| block_or_address(text(item)?))
            .collect::<Result<Vec<_>>>()?,
        Value::Set(items) => items
            .iter()
            .map(|item| block_or_address(text(item)?))
            .collect::<Result<Vec<_>>>()?,
        _ => bail!("expects an array or a set of strings"),
    };
    Ok(Value::from(
        IpNet::aggregate(&blocks)
            .iter()
            .map(|net| string(&net.to_string()))
            .collect::<BTreeSet<_>>(),
    ))
}

/// `net.cidr_expand(cidr)`: the set of all addresses of a block, as long as they are few enough to list.
pub(super) fn expand(args: &[Value]) -> Result<Value> {
    let [cidr] = args else {
        bail!("expects 1 argument")
    };
    let net = block(text(cidr)?)?;
    let host_bits = u32::from(net.max_prefix_len() - net.prefix_len());
    if 1_u128
        .checked_shl(host_bits)
        .is_none_or(|count| count > MAX_EXPANDED)
    {
        return Err(TooMuch(format!("{net} has more than {MAX_EXPANDED} addresses")).into());
    }
    let mut addresses = BTreeSet::new();
    let mut address = net.network();
    loop {
        addresses.insert(string(&address.to_string()));
        if address == net.broadcast() {
            return Ok(Value::from(addresses));
        }
        address = next(address);
    }
}

/// `net.cidr_is_valid(cidr)`.
pub(super) fn is_valid(args: &[Value]) -> Result<Value> {
    let [cidr] = args else {
        bail!("expects 1 argument")
    };
    Ok(Value::Bool(text(cidr)?.parse::<IpNet>().is_ok()))
}

fn next(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add(1).into()),
    }
}

/// The strings of an operand of `net.cidr_contains_matches`, each with its place.
fn placed(operand: &Value) -> Result<Vec<(String, Value)>> {
    let of = |item: &Value, place: Value| -> Result<(String, Value)> {
        let cidr = match item {
            Value::Array(parts) => parts
                .first()
                .context("an array without elements is no address")?,
            other => other,
        };
        Ok((text(cidr)?.to_owned(), place))
    };
    match operand {
        Value::String(cidr) => Ok(vec![(cidr.to_string(), operand.clone())]),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| of(item, Value::from(index)))
            .collect(),
        Value::Set(items) => items.iter().map(|item| of(item, item.clone())).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, item)| of(item, key.clone()))
            .collect(),
        _ => bail!("expects a string, an array, a set or an object of addresses"),
    }
}

/// A block as the API reads it: host bits are cut off, and IPv4 addresses written as IPv6 are IPv4.
fn block(cidr: &str) -> Result<IpNet> {
    let net: IpNet = cidr
        .parse()
        .map_err(|_| anyhow::anyhow!("`{cidr}` is not an address block"))?;
    Ok(canonical(net.trunc()))
}

fn block_or_address(cidr: &str) -> Result<IpNet> {
    if cidr.contains('/') {
        return block(cidr);
    }
    let address: IpAddr = cidr
        .parse()
        .map_err(|_| anyhow::anyhow!("`{cidr}` is neither an address nor an address block"))?;
    Ok(canonical(IpNet::from(address)))
}

fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(prefix) = v6.prefix_len().checked_sub(128 - 32)
        && let Ok(net) = Ipv4Net::new(Ipv4Addr::from(v4.octets()), prefix)
    {
        return IpNet::V4(net);
    }
    net
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rego::value::{from_json, to_json};

    fn call(builtin: fn(&[Value]) -> Result<Value>, args: &serde_json::Value) -> serde_json::Value {
        let args: Vec<_> = args.as_array().unwrap().iter().map(from_json).collect();
        match builtin(&args) {
            Ok(value) => to_json(&value).unwrap(),
            Err(error) => json!({"error": error.to_string()}),
        }
    }

    #[test]
    fn a_block_contains_its_parts_in_either_family() {
        for (args, expected) in [
            (json!(["10.0.0.0/8", "10.1.2.0/24"]), true),
            (json!(["10.0.0.0/8", "10.1.2.3"]), true),
            (json!(["10.1.2.3/8", "10.255.0.0/16"]), true),
            (json!(["10.0.0.0/8", "11.0.0.1"]), false),
            (json!(["10.0.0.0/24", "10.0.0.0/8"]), false),
            (json!(["fd00::/8", "fd00:1::/64"]), true),
            (json!(["::/0", "10.0.0.1"]), false),
            (json!(["10.0.0.0/8", "::ffff:10.0.0.1"]), true),
        ] {
            assert_eq!(call(contains, &args), json!(expected), "{args}");
        }
    }

    #[test]
    fn blocks_intersect_when_one_contains_the_other() {
        assert_eq!(
            call(intersects, &json!(["10.0.0.0/8", "10.1.0.0/16"])),
            json!(true)
        );
        assert_eq!(
            call(intersects, &json!(["10.1.0.0/16", "10.0.0.0/8"])),
            json!(true)
        );
        assert_eq!(
            call(intersects, &json!(["10.0.0.0/16", "10.1.0.0/16"])),
            json!(false)
        );
        assert_eq!(
            call(intersects, &json!(["::/0", "10.1.0.0/16"])),
            json!(false)
        );
    }

    #[test]
    fn matches_name_the_places_on_both_sides() {
        assert_eq!(
            call(
                contains_matches,
                &json!([["10.0.0.0/8", ["fd00::/8", "x"]], {"a": "10.1.0.0/16", "b": "fd00::1"}])
            ),
            json!([[0, "a"], [1, "b"]])
        );
        assert_eq!(
            call(contains_matches, &json!(["10.0.0.0/8", "10.0.0.1"])),
            json!([["10.0.0.0/8", "10.0.0.1"]])
        );
    }

    #[test]
    fn merging_joins_neighbours_and_drops_what_is_contained() {
        assert_eq!(
            call(
                merge,
                &json!([[
                    "10.0.0.0/25",
                    "10.0.0.128/25",
                    "10.0.0.7",
                    "fd00::/16",
                    "fd00::1"
                ]])
            ),
            json!(["10.0.0.0/24", "fd00::/16"])
        );
    }

    #[test]
    fn expanding_lists_addresses_up_to_a_bound() {
        assert_eq!(
            call(expand, &json!(["10.0.0.0/30"])),
            json!(["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"])
        );
        assert_eq!(
            call(expand, &json!(["255.255.255.255/32"])),
            json!(["255.255.255.255"])
        );
        assert_eq!(
            call(expand, &json!(["10.0.0.0/12"])),
            json!({"error": "10.0.0.0/12 has more than 65536 addresses"})
        );
        assert_eq!(
            call(expand, &json!(["::/0"])),
            json!({"error": "::/0 has more than 65536 addresses"})
        );
    }

    #[test]
    fn what_is_not_an_address_is_an_error() {
        assert_eq!(
            call(contains, &json!(["10.0.0.0/33", "10.0.0.1"])),
            json!({"error": "`10.0.0.0/33` is not an address block"})
        );
        assert_eq!(call(is_valid, &json!(["10.0.0.0/33"])), json!(false));
        assert_eq!(call(is_valid, &json!(["10.0.0.0/32"])), json!(true));
    }
}
