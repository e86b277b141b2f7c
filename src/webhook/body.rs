//! The body of a request: read whole, within a size, a time, a number and a share of memory.
//!
//! The API server takes requests of up to 3 MiB, and a review holds the object twice, so bodies of 7 MiB are real. A body
//! that is too large is still taken off the wire, to a point, so that the client reads the refusal instead of an error.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::Body as _;
use hyper::header::{CONTENT_LENGTH, EXPECT};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use turns::Turns;

mod turns;

/// The limits of bodies.
#[derive(Debug, Clone)]
pub struct BodyOptions {
    /// The largest body, in bytes.
    pub max_bytes: usize,
    /// How long a body may take to come; never longer than half of what the answer may take.
    pub timeout: Duration,
    /// How many bodies may be on their way at once; beyond it the one that takes longest makes room.
    pub at_once: usize,
    /// How much memory all large bodies together may take, in bytes.
    pub memory: usize,
}

/// Reads bodies.
#[derive(Debug)]
pub struct Bodies {
    options: BodyOptions,
    /// What is left of the memory, in pages.
    memory: Arc<Semaphore>,
    turns: Turns,
}

/// A body, and its hold on the memory that it takes.
#[derive(Debug)]
pub struct Held {
    /// The bytes.
    pub bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It has more bytes than are taken.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It did not come in time.
    #[error("the body did not come within {0:?}")]
    TooSlow(Duration),
    /// Others needed its place, and it took longest.
    #[error("too many requests at once, and this one's body did not come")]
    Crowded,
    /// Too many large bodies are being read.
    #[error("too many large requests at once")]
    NoMemory,
    /// The client ended it halfway.
    #[error("the body ended too early")]
    Broken,
}

/// Memory is counted in pages; bodies of up to [`FREE`] bytes are not counted, the limit on requests bounds them.
const PAGE: usize = 64 * 1024;
const FREE: usize = PAGE;
/// How much of a refused body is taken off the wire, and for how long.
const DISCARD_BYTES: usize = 32 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

impl Default for BodyOptions {
    fn default() -> Self {
        Self {
            max_bytes: 8 * 1024 * 1024,
            timeout: Duration::from_secs(3),
            at_once: 512,
            memory: 128 * 1024 * 1024,
        }
    }
}

impl Bodies {
    /// A reader with these limits.
    pub fn new(options: BodyOptions) -> Self {
        let turns = options.at_once;
        let pages = options.memory.max(options.max_bytes).div_ceil(PAGE);
        Self {
            options,
            memory: Arc::new(Semaphore::new(pages.min(Semaphore::MAX_PERMITS))),
            turns: Turns::new(turns),
        }
    }

    /// Reads a body to its end; `patience` is what the whole answer may take.
    pub async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        patience: Duration,
    ) -> Result<Held, BodyError> {
        let mut body = body;
        let limit = self.options.timeout.min(patience / 2);
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let refused = if announced.is_some_and(|length| length > self.options.max_bytes as u64) {
            BodyError::TooLarge(self.options.max_bytes)
        } else {
            let turn = self.turns.begin();
            let collected = tokio::select! {
                // What is there already is taken, whoever else comes.
                biased;
                collected = timeout(limit, self.collect(&mut body)) => collected,
                () = turn.over() => return Err(BodyError::Crowded),
            };
            match collected {
                Ok(Ok(held)) => return Ok(held),
                Ok(Err(error)) => error,
                Err(_) => return Err(BodyError::TooSlow(limit)),
            }
        };
        // A client that waits to be told has not sent anything, and polling the body would tell it to.
        if !headers.contains_key(EXPECT) {
            discard(body).await;
        }
        Err(refused)
    }

    async fn collect(&self, body: &mut Body) -> Result<Held, BodyError> {
        let mut first: Option<Bytes> = None;
        let mut whole: Vec<u8> = Vec::new();
        let mut memory: Option<OwnedSemaphorePermit> = None;
        let mut length = 0_usize;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
                continue;
            };
            length = length.saturating_add(data.len());
            if length > self.options.max_bytes {
                return Err(BodyError::TooLarge(self.options.max_bytes));
            }
            self.claim(&mut memory, length)?;
            match first.take() {
                // A body that comes in one piece, as small ones do, is not copied.
                None if whole.is_empty() => first = Some(data),
                None => whole.extend_from_slice(&data),
                Some(head) => {
                    let hint = usize::try_from(body.size_hint().lower())
                        .unwrap_or(0)
                        .min(self.options.max_bytes);
                    whole.reserve(length.saturating_add(hint.min(1024 * 1024)));
                    whole.extend_from_slice(&head);
                    whole.extend_from_slice(&data);
                }
            }
        }
        Ok(Held {
            bytes: first.unwrap_or_else(|| Bytes::from(whole)),
            _memory: memory,
        })
    }

    /// Claims memory for what has come, not for what was announced: announcing costs a client nothing.
    fn claim(
        &self,
        held: &mut Option<OwnedSemaphorePermit>,
        length: usize,
    ) -> Result<(), BodyError> {
        let wanted = if length <= FREE {
            0
        } else {
            length.div_ceil(PAGE)
        };
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(missing) = wanted.checked_sub(have).filter(|missing| *missing > 0) else {
            return Ok(());
        };
        let missing = u32::try_from(missing).map_err(|_| BodyError::NoMemory)?;
        let more = Arc::clone(&self.memory)
            .try_acquire_many_owned(missing)
            .map_err(|_| BodyError::NoMemory)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

/// Takes the rest of a body off the wire: an answer to a client that is still sending could be lost.
pub async fn discard(body: Body) {
    let mut body = body;
    let mut taken = 0_usize;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            taken = taken.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if taken > DISCARD_BYTES {
                break;
            }
        }
    };
    // Late or not, the answer follows.
    let _ = timeout(DISCARD_TIME, rest).await;
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;
    use hyper::header::HeaderValue;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// A body in pieces, which then ends or never does.
    struct Pieces {
        pieces: VecDeque<Bytes>,
        ends: bool,
    }

    impl hyper::body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.pieces.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn pieces(count: usize, size: usize) -> Body {
        let pieces = (0..count)
            .map(|number| Bytes::from(vec![u8::try_from(number).unwrap(); size]))
            .collect();
        Body::new(Pieces { pieces, ends: true })
    }

    fn bodies(max_bytes: usize, memory: usize) -> Bodies {
        Bodies::new(BodyOptions {
            max_bytes,
            memory,
            timeout: Duration::from_millis(30),
            ..BodyOptions::default()
        })
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together_in_order() {
        for count in [0, 1, 2, 5] {
            let held = bodies(1000, 0)
                .read(&HeaderMap::new(), pieces(count, 3), LONG)
                .await
                .unwrap();
            let wanted: Vec<u8> = (0..count)
                .flat_map(|number| [u8::try_from(number).unwrap(); 3])
                .collect();
            assert_eq!(held.bytes, wanted);
        }
    }

    #[tokio::test]
    async fn the_limit_holds_for_announced_and_for_unannounced_bodies_and_is_inclusive() {
        let bodies = bodies(1000, 0);
        assert!(
            bodies
                .read(&HeaderMap::new(), pieces(10, 100), LONG)
                .await
                .is_ok()
        );
        assert_eq!(
            bodies
                .read(&HeaderMap::new(), pieces(11, 100), LONG)
                .await
                .unwrap_err(),
            BodyError::TooLarge(1000)
        );
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("1001"));
        assert_eq!(
            bodies.read(&headers, pieces(0, 0), LONG).await.unwrap_err(),
            BodyError::TooLarge(1000)
        );
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_is_given_up() {
        let endless = Body::new(Pieces {
            pieces: VecDeque::from([Bytes::from_static(b"{")]),
            ends: false,
        });
        let error = bodies(1000, 0)
            .read(&HeaderMap::new(), endless, LONG)
            .await
            .unwrap_err();
        assert_eq!(error, BodyError::TooSlow(Duration::from_millis(30)));
    }

    #[tokio::test]
    async fn a_body_has_half_of_the_time_of_the_answer_at_most() {
        let endless = Body::new(Pieces {
            pieces: VecDeque::new(),
            ends: false,
        });
        let patience = Duration::from_millis(20);
        let error = bodies(1000, 0)
            .read(&HeaderMap::new(), endless, patience)
            .await
            .unwrap_err();
        assert_eq!(error, BodyError::TooSlow(patience / 2));
    }

    #[tokio::test]
    async fn large_bodies_share_a_memory_and_give_it_back() {
        let bodies = bodies(4 * PAGE, 6 * PAGE);
        let first = bodies
            .read(&HeaderMap::new(), pieces(4, PAGE), LONG)
            .await
            .unwrap();
        let error = bodies
            .read(&HeaderMap::new(), pieces(4, PAGE), LONG)
            .await
            .unwrap_err();
        assert_eq!(error, BodyError::NoMemory);
        assert!(
            bodies
                .read(&HeaderMap::new(), pieces(1, PAGE), LONG)
                .await
                .is_ok(),
            "small ones are not counted"
        );
        drop(first);
        assert!(
            bodies
                .read(&HeaderMap::new(), pieces(4, PAGE), LONG)
                .await
                .is_ok()
        );
    }
}
