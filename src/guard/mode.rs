//! What is done about a finding: refuse, tell, or only record.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a guardrail does about what it finds. Ordered from mild to strict.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Mode {
    /// Let it pass and record it: audit annotation, metric, report. Silent to the person who applies.
    #[default]
    Audit,
    /// Let it pass and say so where it is applied.
    Warn,
    /// Refuse it.
    Enforce,
}

// === impl Mode ===

impl Mode {
    /// The name as it stands in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "Audit",
            Self::Warn => "Warn",
            Self::Enforce => "Enforce",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
