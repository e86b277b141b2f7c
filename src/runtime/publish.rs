//! What is passed on only where it is another one than before.

use tokio::sync::watch;

/// Puts a value into a channel; who listens is woken only where it differs from the one that was there.
pub fn publish<T: PartialEq>(channel: &watch::Sender<T>, value: T) {
    channel.send_if_modified(|told| {
        let differs = *told != value;
        if differs {
            *told = value;
        }
        differs
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_woken_by_what_is_new() {
        let (sender, mut receiver) = watch::channel(1);
        publish(&sender, 1);
        assert!(!receiver.has_changed().unwrap());
        publish(&sender, 2);
        assert!(receiver.has_changed().unwrap());
        assert_eq!(*receiver.borrow_and_update(), 2);
    }
}
