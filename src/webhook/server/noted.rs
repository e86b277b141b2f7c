//! The body of a request, of which it is noted whether it is there: a connection that only owes bodies is no busy one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::activity::{Activity, Owed};

/// A body on its way.
#[derive(Debug)]
pub(super) struct Noted {
    body: Incoming,
    /// Until its end has come.
    owed: Option<Owed>,
}

impl Noted {
    pub(super) fn new(body: Incoming, activity: &Arc<Activity>) -> Self {
        let owed = (!body.is_end_stream()).then(|| activity.owe_body());
        Self { body, owed }
    }
}

impl Body for Noted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.owed = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
