//! Hears what others do to our table, beside the loop that repairs it.

use std::time::Duration;

use tokio::sync::mpsc;

use super::nft::{Event, Monitor};

/// How soon it is listened again after that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells when somebody else is at the table, from a thread of its own that ends with its listener.
pub(super) fn listen(mut monitor: Monitor) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    let listen = move || {
        while !sender.is_closed() {
            match monitor.wait(Duration::from_millis(500)) {
                // A listener that is behind knows already that there is something to look at.
                Ok(events) => events
                    .into_iter()
                    .for_each(|event| drop(sender.try_send(event))),
                Err(error) => {
                    tracing::warn!(error = %error, "what others do to the table is not heard");
                    std::thread::sleep(AGAIN);
                }
            }
        }
    };
    std::thread::spawn(listen);
    receiver
}
