//! What `ringfence ruleset` prints without a kernel is what the agent's plan puts into one.

use std::process::Command;

use ringfence::agent::nft::Socket;
use ringfence::ruleset::Transaction;

use crate::apply::{apply, read};
use crate::space::{alone, listed, nft};

#[test]
fn what_is_printed_for_nft_is_what_the_agent_applies() {
    let cluster = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/node.yaml");
    let print = |form: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args(["ruleset", cluster, "--node", "worker-1", "--output", form])
            .output()
            .expect("run");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("a text")
    };
    let text = print("nft");
    let (by_nft, found) = alone(|| {
        // Twice: it takes the place of what is there.
        for _ in 0..2 {
            nft(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
        (listed(), read(&mut Socket::open().expect("a socket")))
    });
    assert_eq!(format!("{}\n", found.digest()), print("digest"));
    let by_netlink = alone(|| {
        let mut socket = Socket::open().expect("a socket");
        apply(&mut socket, &Transaction::whole(&found));
        listed()
    });
    assert_eq!(by_netlink, by_nft, "{text}");
}
