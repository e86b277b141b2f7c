//! When a request must be answered: the API server sends its patience as `?timeout=10s`, in Go's words for durations.

use std::time::Duration;

/// What an API server waits when it does not say (`timeoutSeconds` of a webhook registration).
const DEFAULT: Duration = Duration::from_secs(10);
/// The longest that a registration may ask for.
const LONGEST: Duration = Duration::from_secs(30);

/// How long an answer may take, counted from the moment the request came: the caller's patience less a margin for the
/// way back. A query without a readable timeout has the API's default.
pub fn patience(query: Option<&str>) -> Duration {
    let asked = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == "timeout")
        .and_then(|(_, value)| go_duration(value))
        .filter(|asked| !asked.is_zero())
        .unwrap_or(DEFAULT)
        .min(LONGEST);
    let margin = (asked / 10).clamp(Duration::from_millis(20), Duration::from_millis(500));
    asked.saturating_sub(margin).max(asked / 2)
}

/// Reads what Go's `Duration.String` writes and `ParseDuration` reads, such as `10s`, `1m30s` or `1.5s`; not below zero.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end)?;
        let unit: u128 = match unit {
            "ns" => 1,
            // Both letters that look like a micro sign; a query may also have them percent-encoded.
            "us" | "\u{b5}s" | "\u{3bc}s" | "%C2%B5s" | "%CE%BCs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if !whole.is_empty() {
            nanos = nanos.checked_add(
                whole
                    .parse::<u64>()
                    .ok()
                    .map(u128::from)?
                    .checked_mul(unit)?,
            )?;
        }
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            nanos = nanos.checked_add(scale.checked_mul(u128::from(digit.checked_sub(b'0')?))?)?;
        }
        rest = after;
    }
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, milliseconds) in [
            ("10s", 10_000.0),
            ("+1s", 1_000.0),
            ("1m30s", 90_000.0),
            ("1.5s", 1_500.0),
            (".5s", 500.0),
            ("2.s", 2_000.0),
            ("250ms", 250.0),
            ("1h", 3_600_000.0),
            ("3us", 0.003),
            ("3\u{b5}s", 0.003),
            ("7ns", 0.000_007),
            ("0", 0.0),
            ("0s", 0.0),
            ("1.0000000000000001s", 1_000.0),
        ] {
            let wanted = Duration::from_secs_f64(milliseconds / 1_000.0);
            assert_eq!(go_duration(text), Some(wanted), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            ".s",
            "-1s",
            "1d",
            "10 s",
            "1s2",
            "99999999999999999999h",
            "9999999999h",
            "ten",
        ] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn the_answer_comes_before_the_caller_gives_up() {
        assert_eq!(patience(Some("timeout=10s")), Duration::from_millis(9_500));
        assert_eq!(patience(Some("x=1&timeout=1s")), Duration::from_millis(900));
        assert_eq!(
            patience(Some("timeout=30ms")),
            Duration::from_millis(15),
            "a short patience is not eaten by the margin"
        );
        assert_eq!(
            patience(Some("timeout=10h")),
            Duration::from_millis(29_500),
            "no registration may wait for longer"
        );
        for none in [
            None,
            Some(""),
            Some("timeout="),
            Some("timeout=soon"),
            Some("timeout=0s"),
            Some("timeout"),
        ] {
            assert_eq!(patience(none), Duration::from_millis(9_500), "{none:?}");
        }
    }
}
