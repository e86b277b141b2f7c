//! Ringfence's own kinds from JSON: strict, with the field of every problem.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::netpol::{FieldPath, ParseError, Problem, decode};

/// Reads one of Ringfence's own kinds. Wrong types and unknown fields are errors, also inside the parts that
/// Kubernetes' own types describe (selectors, metadata).
pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, ParseError> {
    let decoded = decode::decode::<T>(value).map_err(|problems| ParseError { problems })?;
    // What led here, and no field of the generated type.
    let known = ["apiVersion", "kind"].map(|field| FieldPath::of([field]));
    // Some of our own types say so themselves, and of which fields there are.
    let is_told = |field: &FieldPath| {
        let mut told = decoded.wrong_types.iter();
        known.contains(field) || told.any(|problem| problem.field == *field)
    };
    let unknown: Vec<FieldPath> = decoded
        .unknown_fields
        .into_iter()
        .filter(|field| !is_told(field))
        .collect();
    let unknown = unknown.into_iter().map(|field| Problem {
        field,
        reason: "unknown field".to_owned(),
    });
    let problems: Vec<Problem> = decoded.wrong_types.into_iter().chain(unknown).collect();
    if problems.is_empty() {
        Ok(decoded.object)
    } else {
        Err(ParseError { problems })
    }
}
