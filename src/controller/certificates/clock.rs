//! The time by the API server's clock, because that is the one by which it finds a certificate good, ended or not yet valid.
//!
//! Each of its answers says the time (`Date`, RFC 9110, 6.6.1). Between two answers it is carried on by a clock that never
//! jumps, so that nothing here depends on the time of day of this machine, but where both agree or nothing was heard yet.

use std::time::Duration;

use hyper::header::DATE;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, timeout};

/// The API server's clock, as far as it is known.
#[derive(Debug)]
pub(super) struct Clock {
    told: Option<Told>,
    /// Whether the last look found the machine's clock to be wrong.
    differs: bool,
}

/// What the API server said.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Timestamp,
    since: Instant,
}

/// How long what was said is carried on before it is asked for again.
const FRESH: Duration = Duration::from_secs(30);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clocks that differ by less are taken for the same: the time is told in whole seconds, and answers take a while.
const SAME: SignedDuration = SignedDuration::from_secs(5);

// === impl Clock ===

impl Clock {
    /// A clock that knows nothing but the machine's own yet.
    pub(super) const fn new() -> Self {
        Self {
            told: None,
            differs: false,
        }
    }

    /// What time it is; asks where it was not asked for a while. Where there is no answer the last one is carried on.
    pub(super) async fn ask(&mut self, client: &Client) -> Timestamp {
        if self.told.is_none_or(|told| told.since.elapsed() >= FRESH)
            && let Ok(Some(at)) = timeout(PATIENCE, date(client)).await
        {
            let since = Instant::now();
            self.told = Some(Told { at, since });
        }
        let own = Timestamp::now();
        let now = self.at(own);
        let differs = own != now;
        if differs && !self.differs {
            tracing::warn!(
                own = %own,
                api_server = %now,
                "the clock of this machine differs from the API server's, whose time is taken for certificates"
            );
        }
        self.differs = differs;
        now
    }

    /// What time it is as far as is known.
    pub(super) fn now(&self) -> Timestamp {
        self.at(Timestamp::now())
    }

    /// The same when this machine's clock says so.
    fn at(&self, own: Timestamp) -> Timestamp {
        self.told
            .map_or(own, |told| settled(own, told.at, told.since.elapsed()))
    }
}

/// The machine's own time where that agrees with what was told so long ago; it is the finer one.
fn settled(own: Timestamp, told: Timestamp, ago: Duration) -> Timestamp {
    let ago = SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX);
    let told = told.saturating_add(ago).unwrap_or(Timestamp::MAX);
    if own.duration_until(told).abs() < SAME {
        own
    } else {
        told
    }
}

/// What an answer says, whatever else it says.
async fn date(client: &Client) -> Option<Timestamp> {
    let request = hyper::Request::get("/version").body(Body::empty()).ok()?;
    let answer = client.send(request).await.ok()?;
    read(answer.headers().get(DATE)?.to_str().ok()?)
}

fn read(date: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(date).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn a_date_is_read_as_http_writes_it_and_nothing_else_is_a_time() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(read(date), Some(at("1994-11-06T08:49:37Z")));
        for date in ["", "0", "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994"] {
            assert_eq!(read(date), None, "{date}");
        }
    }

    #[test]
    fn the_own_clock_counts_where_it_agrees_and_else_what_was_told_is_carried_on() {
        let told = at("2026-11-21T12:00:00Z");
        let ago = Duration::from_secs(20);
        for (own, taken) in [
            // Told in whole seconds, and late.
            ("2026-11-21T12:00:20.9Z", "2026-11-21T12:00:20.9Z"),
            ("2026-11-21T12:00:16Z", "2026-11-21T12:00:16Z"),
            ("2026-11-21T12:00:26Z", "2026-11-21T12:00:20Z"),
            ("2028-01-01T00:00:00Z", "2026-11-21T12:00:20Z"),
            ("1970-01-01T00:00:00Z", "2026-11-21T12:00:20Z"),
        ] {
            assert_eq!(settled(at(own), told, ago), at(taken), "{own}");
        }
        assert_eq!(settled(told, told, Duration::MAX), Timestamp::MAX);
    }
}
