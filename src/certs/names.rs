//! The names that a certificate is for, checked before anything is signed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{CertError, Name};

/// Checked names of a certificate, at least one. A Service's certificate needs `<service>.<namespace>.svc`; a webhook
/// registered by URL needs the URL's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(BTreeSet<Name>);

impl Names {
    /// Reads each text as an IP address or else as a DNS name.
    pub fn parse<I, T>(texts: I) -> Result<Self, CertError>
    where
        I: IntoIterator<Item = T>,
        T: AsRef<str>,
    {
        let names = texts
            .into_iter()
            .map(|text| parse_one(text.as_ref()))
            .collect::<Result<BTreeSet<_>, _>>()?;
        if names.is_empty() {
            return Err(CertError::NoName);
        }
        Ok(Self(names))
    }

    /// Names that were checked before.
    pub fn of(names: impl IntoIterator<Item = Name>) -> Result<Self, CertError> {
        let names: BTreeSet<Name> = names.into_iter().collect();
        if names.is_empty() {
            return Err(CertError::NoName);
        }
        Ok(Self(names))
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }

    /// Whether this name is one of them.
    pub fn contains(&self, name: &Name) -> bool {
        self.0.contains(name)
    }
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            name.fmt(f)?;
        }
        Ok(())
    }
}

/// The host of a URL, without brackets and port.
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some(address) = authority.strip_prefix('[') {
        return address.split(']').next().unwrap_or_default();
    }
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

fn parse_one(text: &str) -> Result<Name, CertError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Name::Ip(address));
    }
    let bad = |reason| CertError::BadName {
        name: text.to_owned(),
        reason,
    };
    let name = text.to_ascii_lowercase();
    if name.is_empty() {
        return Err(bad("it is empty"));
    }
    if name.len() > 253 {
        return Err(bad("it is longer than 253 characters"));
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(bad("each part between dots has 1 to 63 characters"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(bad(
                "a part between dots neither begins nor ends with a hyphen",
            ));
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return Err(bad("only letters, digits, hyphens and dots are allowed"));
        }
    }
    // An address with a mistake in it would pass as a DNS name and be trusted by nobody.
    if name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(bad(
            "its last part is a number, so it looks like an address with a mistake",
        ));
    }
    Ok(Name::Dns(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_dns_names_are_told_apart() {
        let names = Names::parse([
            "127.0.0.1",
            "::1",
            "[fd00::1]",
            "Ringfence.ringfence-system.SVC",
            "localhost",
        ])
        .unwrap();
        assert_eq!(
            names.iter().cloned().collect::<Vec<_>>(),
            [
                Name::Dns("localhost".into()),
                Name::Dns("ringfence.ringfence-system.svc".into()),
                Name::Ip("127.0.0.1".parse().unwrap()),
                Name::Ip("::1".parse().unwrap()),
                Name::Ip("fd00::1".parse().unwrap()),
            ]
        );
    }

    #[test]
    fn names_that_no_client_would_accept_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("10.0.0.256", "looks like an address"),
            ("a..b", "1 to 63"),
            ("-a.svc", "hyphen"),
            ("*.svc", "only letters"),
            ("a b", "only letters"),
            ("bücher.example", "only letters"),
        ] {
            let error = Names::parse([text]).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        assert!(Names::parse(["a".repeat(64)]).is_err());
        assert!(matches!(
            Names::parse(Vec::<String>::new()),
            Err(CertError::NoName)
        ));
    }
}
