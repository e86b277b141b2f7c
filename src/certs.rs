//! Certificates: a certificate authority, the leaves that it signs, and what a certificate says about itself.
//!
//! The clock is an argument: callers say from when until when a certificate holds. Keys stay in [`PrivateKey`],
//! which never prints itself, and reach a disk only through [`write_file`] with [`Access::Owner`].

mod authority;
mod facts;
mod files;
mod names;

use std::net::IpAddr;

pub use authority::{Authority, Issued, PrivateKey, Validity};
pub use facts::CertificateFacts;
pub use files::{Access, write_file};
pub use names::{Names, host_of};

/// Why a certificate could not be made, read or stored.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A certificate that names nothing is trusted by nobody.
    #[error("a certificate needs at least one DNS name or IP address")]
    NoName,
    /// Not an IP address and not a DNS name that a certificate can hold.
    #[error("{name:?} is neither an IP address nor a DNS name: {reason}")]
    BadName {
        /// What was asked for.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The authority may sign only for the names it was made for.
    #[error("this authority may not sign for {name}")]
    NameNotPermitted {
        /// The name that was asked for.
        name: String,
    },
    /// The times would leave no moment at which the certificate holds.
    #[error(
        "a certificate must hold for some time, and this one would end ({until}) before it begins ({from})"
    )]
    EmptyValidity {
        /// When it would begin to hold.
        from: jiff::Timestamp,
        /// When it would end.
        until: jiff::Timestamp,
    },
    /// A certificate's time lies outside of what X.509 can say (RFC 5280, 4.1.2.5).
    #[error("a certificate cannot be valid from {from} until {until}: out of range")]
    TimeOutOfRange {
        /// The text of the beginning.
        from: String,
        /// The text of the end.
        until: String,
    },
    /// The bytes are no PEM with a certificate in it.
    #[error("no certificate found: expected PEM with a CERTIFICATE section")]
    NoCertificate,
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate is not valid X.509.
    #[error("the certificate is not valid X.509: {0}")]
    Unreadable(String),
    /// The system gave no randomness.
    #[error("the system has no random numbers to give")]
    NoRandomness,
    /// The certificate library refused.
    #[error("the certificate could not be made")]
    Library(#[from] rcgen::Error),
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// One name that a certificate can hold: a DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// A DNS name in lower case.
    Dns(String),
    /// An IP address; a client that dials an address compares it with this, never with a DNS name.
    Ip(IpAddr),
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}
