//! One object of the API server, followed: what it is now, or that it is not there.
//!
//! A watch of this object alone, begun again for as long as it takes when it breaks. What reads it sees the newest state
//! and never each step.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// What is known of an object.
#[derive(Debug)]
pub enum Known<K> {
    /// Nothing yet: the first answer has not come.
    Unknown,
    /// It is not there.
    Absent,
    /// It is there.
    Here(Arc<K>),
}

/// Follows the object of a name; the task ends when nobody listens any more.
pub fn follow<K>(
    api: Api<K>,
    name: String,
) -> (
    watch::Receiver<Known<K>>,
    impl Future<Output = Result<(), Infallible>> + Send + use<K>,
)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let (sender, receiver) = watch::channel(Known::Unknown);
    let task = async move {
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        let stream = watcher::watch_object(api, &name).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut broken = false;
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                () = sender.closed() => return Ok(()),
            };
            match next {
                Some(Ok(object)) => {
                    broken = false;
                    sender.send_replace(
                        object.map_or(Known::Absent, |object| Known::Here(Arc::new(object))),
                    );
                }
                Some(Err(error)) => {
                    // It is tried again and again; one line says so.
                    if !std::mem::replace(&mut broken, true) {
                        tracing::warn!(kind, name, error = %chain(&error), "watch broken, tried again");
                    }
                }
                None => return Ok(()),
            }
        }
    };
    (receiver, task)
}

/// What went wrong with a request, in one line: the API server's own words where it answered, else the error with all of
/// its causes, none of them twice.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

// === impl Known ===

impl<K> Known<K> {
    /// The object, where it is there.
    pub fn here(&self) -> Option<&Arc<K>> {
        match self {
            Self::Here(object) => Some(object),
            Self::Unknown | Self::Absent => None,
        }
    }

    /// Whether an answer has come.
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

impl<K> Clone for Known<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::Absent => Self::Absent,
            Self::Here(object) => Self::Here(Arc::clone(object)),
        }
    }
}
