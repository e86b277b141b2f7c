//! Two nodes, an agent on each: how soon after the API server's answer one node lets in an address of the other, and how soon after
//! a pod is deleted there its address is nobody's, which another pod may have by then.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::site::{Named, Site};

const NAMESPACE: &str = "shop";
const ROUNDS: usize = 100;
const PORT: u16 = 8080;
/// A connection that is not answered by then is tried again.
const SOON: Duration = Duration::from_millis(2);
/// One that is not answered by then will not be.
const NEVER: Duration = Duration::from_millis(15);

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_soon_allowed_by_the_other_node() {
    let site = Site::new(2, &[("db", 0), ("web", 1)], &[NAMESPACE]).await;
    let [db, web] = ["db", "web"].map(|name| Named {
        namespace: NAMESPACE,
        name,
        app: name,
    });
    let place = |pod: Named<'_>| &site.cluster.pod(pod.name).place;
    site.cluster.serve_all(&[PORT]);
    site.schedule(db, 0).await;
    site.running(db, place(db)).await;
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
    });
    site.policy(NAMESPACE, "db", &spec).await;
    let _agents = [site.agent(0).await, site.agent(1).await];
    let (mut lags, mut windows) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let to = place(db).at(round % 2 == 1, PORT);
        site.schedule(web, 1).await;
        let namespace = &place(web).namespace;
        let is_in = |by| namespace.inside(|| TcpStream::connect_timeout(&to, by).is_ok());
        assert!(!is_in(NEVER), "before its address is known");
        site.running(web, place(web)).await;
        let answered = Instant::now();
        while !is_in(SOON) {
            assert!(answered.elapsed() < Duration::from_secs(10), "{round}");
        }
        lags.push(answered.elapsed());
        // The next one has the same address, which is forgotten before.
        site.delete(web).await;
        let begun = Instant::now();
        let mut window = Duration::ZERO;
        while is_in(NEVER) {
            window = begun.elapsed();
            assert!(window < Duration::from_secs(10), "not forgotten");
        }
        windows.push(window);
    }
    for (what, mut times) in [
        ("to the first connection by the other node", lags),
        (
            "to the last one with the address of a pod that is gone",
            windows,
        ),
    ] {
        times.sort();
        let (half, most) = (times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
        println!("from the API server's answer {what}: p50 {half:?}, p99 {most:?} of {ROUNDS}");
        assert!(half < Duration::from_secs(1), "{what}: {times:?}");
    }
}
