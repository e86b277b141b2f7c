//! Metrics: a registry that every concern adds its own to at the start, and its text at any moment.
//!
//! A concern keeps a struct of typed families next to the code that moves them, made by a function that takes the
//! registry. All names begin with `ringfence_` and end in their unit; labels come from closed sets, so that no input can
//! make series without end. The text is OpenMetrics 1.0, which Prometheus reads.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The media type of [`text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The bounds of histograms of answers, in seconds: from what one decision takes to where an API server gives up.
pub const ANSWER_SECONDS: [f64; 14] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// A registry that has the build in it.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("ringfence");
    registry.register(
        "build",
        "What is running",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry
}

/// All metrics as they are now.
///
/// # Errors
///
/// A metric that cannot be written as text.
pub fn text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_openmetrics_with_the_build() {
        let text = text(&registry()).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            text.contains(&format!(
                "ringfence_build_info{{version=\"{version}\"}} 1\n"
            )),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
