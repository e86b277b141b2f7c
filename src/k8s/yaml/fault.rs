//! Why a text, or one document of it, cannot be read.

use std::ops::Range;

use granit_parser::{ErrorKind, ScanError};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// The bytes of the text that are wrong; empty where something is missing.
    pub range: Range<usize>,
}

/// What can be wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The bytes are no text.
    #[error("not UTF-8: byte {offset} starts no character")]
    NotUtf8 {
        /// Where the first bad byte is.
        offset: usize,
    },
    /// The text begins with the mark of UTF-16.
    #[error("the file is UTF-16; save it as UTF-8")]
    Utf16,
    /// The file is larger than allowed.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The bytes allowed.
        limit: usize,
    },
    /// The file holds more values than allowed.
    #[error("the file holds more than {limit} values")]
    TooManyValues {
        /// The values allowed.
        limit: usize,
    },
    /// Aliases repeat more than allowed: a "billion laughs".
    #[error("the aliases of this document repeat more than {limit} values")]
    TooMuchAliased {
        /// The repeated values allowed.
        limit: usize,
    },
    /// Collections nest deeper than allowed.
    #[error("nested more than {limit} levels deep")]
    TooDeep {
        /// The levels allowed.
        limit: usize,
    },
    /// The text breaks the grammar of YAML or JSON.
    #[error("{0}")]
    Syntax(String),
    /// An alias inside the node it names.
    #[error("an anchor's value contains itself")]
    AliasInsideItself,
    /// A merge key whose value is no mapping.
    #[error("`<<` wants a mapping or a list of mappings")]
    MergeOfNoMapping,
    /// A mapping or a list as a key.
    #[error("a key must be a single value")]
    KeyIsCollection,
    /// A text that YAML and `kubectl` read differently.
    #[error(
        "`kubectl` would read this otherwise than YAML says; quote it, or write it another way"
    )]
    Ambiguous,
    /// A key that reads as null.
    #[error("a key is empty or null; quote it if it is meant as text")]
    KeyIsNull,
    /// An infinite number or none, which JSON cannot say.
    #[error("`{text}` is a number that JSON has no way to write; quote it if it is meant as text")]
    NotFinite {
        /// The number as written.
        text: String,
    },
    /// A value that is not what its tag says.
    #[error("`{text}` is not a valid {tag}")]
    WrongTag {
        /// The value as written.
        text: String,
        /// The tag as usually written.
        tag: String,
    },
}

impl Fault {
    /// A fault at a range.
    pub(super) fn new(kind: FaultKind, range: Range<usize>) -> Self {
        Self { kind, range }
    }

    /// What the scanner says, in the words of somebody who writes manifests.
    pub(super) fn of_scan(error: &ScanError, offset: usize, depth: usize) -> Self {
        let words = match error.kind() {
            ErrorKind::RecursionLimitExceeded => {
                return Self::new(FaultKind::TooDeep { limit: depth }, offset..offset);
            }
            ErrorKind::TabInIndentation
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabNotAllowed
            | ErrorKind::TabInPlainScalar => "a tab stands where YAML wants spaces".to_owned(),
            ErrorKind::UnknownAnchor => "the alias names no anchor above it".to_owned(),
            ErrorKind::InvalidQuotedScalarIndent => {
                "the quoted text above runs on into this line; is its quote never closed?"
                    .to_owned()
            }
            ErrorKind::UnclosedQuotedScalar => "the quote is never closed".to_owned(),
            ErrorKind::UnclosedFlowCollection { open } => format!("`{open}` is never closed"),
            ErrorKind::MappingValueNotAllowed => {
                "a `key: value` cannot start here; quote the text if its `: ` is part of a value"
                    .to_owned()
            }
            ErrorKind::ExpectedBlockMappingKey
            | ErrorKind::SimpleKeyExpected
            | ErrorKind::InvalidSimpleKey => {
                "expected `key: value` here; check the indentation and the colon".to_owned()
            }
            ErrorKind::InvalidIndentation => "the indentation fits no level above it".to_owned(),
            ErrorKind::UnexpectedCharacter { character } => {
                format!(
                    "no value can start with `{}`; quote it",
                    character.escape_default()
                )
            }
            _ => error.info(),
        };
        Self::new(FaultKind::Syntax(words), offset..offset)
    }
}
