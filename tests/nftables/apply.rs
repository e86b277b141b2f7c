//! What is applied is what is read back, and what nft makes of the same as text.

use ringfence::agent::nft::{self, Socket};
use ringfence::ruleset::{Ruleset, Transaction, render};
use rustix::thread::CapabilitySet;

use crate::random;
use crate::space::{alone, listed, nft};

/// How many rulesets by chance are tried.
const SEEDS: u64 = 60;

/// Our table, of which all must be ours.
pub(crate) fn read(socket: &mut Socket) -> Ruleset {
    let found = nft::read(socket).expect("readable").expect("there");
    assert_eq!(found.strangers, [""; 0]);
    assert!(!found.is_torn);
    found.ruleset
}

pub(crate) fn apply(socket: &mut Socket, transaction: &Transaction) {
    socket.apply(transaction).unwrap_or_else(|error| {
        panic!("{error}\n{}", render::transaction(transaction));
    });
}

#[test]
fn what_is_applied_is_read_back_and_is_what_nft_makes_of_the_text() {
    for seed in 0..SEEDS {
        let wanted = random::ruleset(seed);
        let by_netlink = alone(|| {
            let mut socket = Socket::open().expect("a socket");
            apply(&mut socket, &Transaction::whole(&wanted));
            assert_eq!(read(&mut socket), wanted.as_kept(), "seed {seed}");
            listed()
        });
        let text = render::ruleset(&wanted, render::Reader::Nft);
        let by_nft = alone(|| {
            nft(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
            let mut socket = Socket::open().expect("a socket");
            assert_eq!(read(&mut socket), wanted.as_kept(), "seed {seed}\n{text}");
            listed()
        });
        assert_eq!(by_netlink, by_nft, "seed {seed}\n{text}");
    }
}

#[test]
fn without_the_right_to_it_that_is_said() {
    alone(|| {
        let mut right = rustix::thread::capabilities(None).expect("known");
        right.effective.remove(CapabilitySet::NET_ADMIN);
        rustix::thread::set_capabilities(None, right).expect("given up");
        let mut socket = Socket::open().expect("a socket");
        let wanted = random::ruleset(1);
        let error = socket
            .apply(&Transaction::whole(&wanted))
            .expect_err("refused");
        assert!(matches!(error, nft::ApplyError::NotPermitted), "{error:?}");
        assert!(
            error.to_string().contains("capability NET_ADMIN"),
            "{error}"
        );
        let error = nft::read(&mut socket).expect_err("refused");
        assert!(
            error.to_string().contains("capability NET_ADMIN"),
            "{error}"
        );
    });
}

#[test]
fn one_ruleset_becomes_any_other() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let mut old = Ruleset::default();
        apply(&mut socket, &Transaction::whole(&old));
        for seed in 0..SEEDS {
            let new = random::ruleset(seed);
            let transaction = Transaction::between(&old, &new);
            apply(&mut socket, &transaction);
            let text = render::transaction(&transaction);
            assert_eq!(read(&mut socket), new.as_kept(), "seed {seed}\n{text}");
            assert!(Transaction::between(&new, &new).is_empty());
            old = new;
        }
        apply(&mut socket, &Transaction::removal());
        assert!(nft::read(&mut socket).expect("readable").is_none());
        // Where there is no table any more, it goes again.
        apply(&mut socket, &Transaction::removal());
    });
}

#[test]
fn the_text_of_a_transaction_does_the_same() {
    alone(|| {
        let mut socket = Socket::open().expect("a socket");
        let mut old = Ruleset::default();
        nft(&render::transaction(&Transaction::whole(&old))).expect("a table");
        for seed in 0..SEEDS / 2 {
            let new = random::ruleset(seed);
            let text = render::transaction(&Transaction::between(&old, &new));
            nft(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
            assert_eq!(read(&mut socket), new.as_kept(), "seed {seed}\n{text}");
            old = new;
        }
    });
}
