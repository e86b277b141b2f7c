//! Who is reading a body. There are only so many at once, and the next one is never turned away for it: the one that reads
//! for longest makes room. A body of an API server is there within milliseconds, so that one is somebody who does not mean to
//! send his.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Those who read.
#[derive(Debug)]
pub(super) struct Turns {
    most: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    /// In the order in which they came.
    reading: BTreeMap<u64, Arc<Notify>>,
}

/// One who reads; it counts until dropped.
#[derive(Debug)]
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    number: u64,
    over: Arc<Notify>,
}

impl Turns {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            inside: Mutex::default(),
        }
    }

    /// Begins to read, and ends the turn of who reads for longest where there are too many.
    pub(super) fn begin(&self) -> Turn<'_> {
        let mut inside = self.inside();
        if inside.reading.len() >= self.most
            && let Some((_, longest)) = inside.reading.pop_first()
        {
            longest.notify_one();
        }
        let number = inside.next;
        inside.next = number.wrapping_add(1);
        let over = Arc::new(Notify::new());
        inside.reading.insert(number, Arc::clone(&over));
        Turn {
            turns: self,
            number,
            over,
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Waits until others need the place.
    pub(super) async fn over(&self) {
        self.over.notified().await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.inside().reading.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn is_over(turn: &Turn<'_>) -> bool {
        timeout(Duration::from_millis(1), turn.over()).await.is_ok()
    }

    #[tokio::test]
    async fn the_one_that_reads_for_longest_makes_room() {
        let turns = Turns::new(2);
        let (first, second) = (turns.begin(), turns.begin());
        assert!(!is_over(&first).await);
        let third = turns.begin();
        assert!(is_over(&first).await && !is_over(&second).await);
        drop(third);
        let _fourth = turns.begin();
        assert!(!is_over(&second).await, "who has ended counts no more");
        let _fifth = turns.begin();
        assert!(is_over(&second).await);
    }
}
