//! What the CNI told counts for the next agent, too, and until the CNI takes it back.

use crate::cluster::Pod;
use crate::site::Site;
use crate::spoof::{
    NAMESPACE, arrives, eventually, named, only_web, plugin, reaches, tables, told,
};

/// A node with pods of which the API server says no address but of some.
async fn site(pods: &[&str], running: &[&str]) -> Site {
    let places: Vec<(&str, usize)> = pods.iter().map(|name| (*name, 0)).collect();
    let site = Site::new(1, &places, &[NAMESPACE]).await;
    for name in pods {
        site.schedule(named(name), 0).await;
    }
    for name in running {
        site.running(named(name), &site.cluster.pod(name).place)
            .await;
    }
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_only_the_cni_told_counts_until_it_is_taken_back() {
    let site = site(&["web", "db"], &["db"]).await;
    let [web, db] = ["web", "db"].map(|name| &site.cluster.pod(name).place);
    let agent = told(&site).await;
    site.policy(NAMESPACE, "db", &only_web()).await;
    eventually("the policy", || !arrives(web, web.v4.into(), db));
    plugin(&site, "ADD", "web", site.cluster.pod("web"));
    let let_in = || [false, true].map(|v6| reaches(web, web.address(v6), db));
    assert_eq!(let_in(), [true; 2]);

    // The next agent hears of the address from nobody.
    agent.signal("KILL");
    agent.ended().await;
    let agent = told(&site).await;
    assert_eq!(let_in(), [true; 2]);

    // It is taken back, and what the API server says late of a sandbox that is gone is nobody's.
    plugin(&site, "DEL", "web", site.cluster.pod("web"));
    let shut_out = || [false, true].map(|v6| !arrives(web, web.address(v6), db));
    assert_eq!(shut_out(), [true; 2]);
    agent.signal("KILL");
    agent.ended().await;
    let _agent = told(&site).await;
    assert_eq!(shut_out(), [true; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_back_is_not_the_pod_s_that_the_api_server_says_has_it() {
    let site = site(&["web", "db"], &["web", "db"]).await;
    let [web, db] = ["web", "db"].map(|name| &site.cluster.pod(name).place);
    let agent = told(&site).await;
    site.policy(NAMESPACE, "db", &only_web()).await;
    let let_in = || [false, true].map(|v6| reaches(web, web.address(v6), db));
    plugin(&site, "ADD", "web", site.cluster.pod("web"));
    assert_eq!(let_in(), [true; 2]);
    // Another agent was told.
    agent.signal("KILL");
    agent.ended().await;
    let _agent = told(&site).await;
    plugin(&site, "DEL", "web", site.cluster.pod("web"));
    for v6 in [false, true] {
        assert!(!arrives(web, web.address(v6), db), "{v6}");
    }
    plugin(&site, "ADD", "web", site.cluster.pod("web"));
    assert_eq!(let_in(), [true; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sandboxes_that_name_one_interface_are_noticed_through_the_end_of_an_agent() {
    let site = site(&["web", "db", "liar"], &["web", "db", "liar"]).await;
    let agent = told(&site).await;
    plugin(&site, "ADD", "web", site.cluster.pod("web"));
    agent.signal("KILL");
    agent.ended().await;
    let agent = told(&site).await;
    let is_held = |port: &str| tables(&site).iter().any(|table| table.contains(port));
    assert!(is_held(&site.cluster.pod("web").port));
    let liar = site.cluster.pod("liar").clone();
    let port = site.cluster.pod("web").port.clone();
    plugin(
        &site,
        "ADD",
        "liar",
        &Pod {
            port: port.clone(),
            ..liar
        },
    );
    agent.line(&["two sandboxes name it"]).await;
    // Nobody is held to anything there.
    eventually("not held", || !is_held(&port));
}
