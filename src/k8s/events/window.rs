//! What Events tell of the last while: which changes were let pass and would be refused in mode `Enforce`.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};

use super::{CHECK, GUARDRAILS, WEBHOOK, WOULD_REFUSE};

/// How many Events a page holds.
const PAGE: u32 = 500;

/// What one Event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The namespace of the object, empty where it has none.
    pub namespace: String,
    /// The object, as `Kind name`.
    pub object: String,
    /// The id of the check.
    pub check: String,
    /// The guardrails that ask for it.
    pub guardrails: Vec<String>,
    /// What was said.
    pub note: String,
    /// How often it happened.
    pub count: u32,
    /// When it happened first.
    pub first: Timestamp,
    /// When it happened last.
    pub last: Timestamp,
}

/// Reads all of them, of every webhook.
///
/// # Errors
/// The API server cannot be asked, or whoever asks may not.
pub async fn passed(client: &Client) -> Result<Vec<Passed>, kube::Error> {
    let api: Api<Event> = Api::all(client.clone());
    let fields = format!("reportingController={WEBHOOK},reason={WOULD_REFUSE}");
    let mut parameters = ListParams::default().limit(PAGE).fields(&fields);
    let mut passed = Vec::new();
    loop {
        let page = api.list(&parameters).await?;
        passed.extend(page.items.iter().filter_map(Passed::of));
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => parameters = parameters.continue_token(&next),
            None => return Ok(passed),
        }
    }
}

// === impl Passed ===

impl Passed {
    /// What an Event tells; nothing of one that was made by somebody else.
    fn of(event: &Event) -> Option<Self> {
        let annotations = event.metadata.annotations.as_ref()?;
        let regarding = event.regarding.as_ref()?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let first = event.event_time.as_ref()?.0;
        let series = event.series.as_ref();
        let guardrails = annotations.get(GUARDRAILS).map_or("", String::as_str);
        Some(Self {
            namespace: text(&regarding.namespace),
            object: format!("{} {}", text(&regarding.kind), text(&regarding.name)),
            check: annotations.get(CHECK)?.clone(),
            guardrails: guardrails.split(',').map(str::to_owned).collect(),
            note: text(&event.note),
            count: series.map_or(1, |series| u32::try_from(series.count).unwrap_or(1)),
            first,
            last: series.map_or(first, |series| series.last_observed_time.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(series: &serde_json::Value) -> Option<Passed> {
        let event = json!({
            "metadata": {"namespace": "shop", "annotations": {CHECK: "RF201", GUARDRAILS: "a,b"}},
            "regarding": {"kind": "Pod", "name": "web", "namespace": "shop"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "note": "RF201: open", "series": series,
        });
        Passed::of(&serde_json::from_value(event).unwrap())
    }

    #[test]
    fn a_series_tells_how_often_and_until_when() {
        let once = read(&json!(null)).unwrap();
        assert_eq!((once.count, once.first), (1, once.last));
        assert_eq!(once.guardrails, ["a", "b"]);
        assert_eq!(once.object, "Pod web");
        let last = "2026-01-01T00:10:00.000000Z";
        let often = read(&json!({"count": 12, "lastObservedTime": last})).unwrap();
        assert_eq!((often.count, often.last), (12, last.parse().unwrap()));
    }
}
