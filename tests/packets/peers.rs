//! Who is a peer, on packets: pods that run with addresses of their own. Those on a node's network are not, nor those that have
//! finished, whoever has their address by then.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::Place;
use crate::probe::Outcome;
use crate::service;
use crate::site::{Named, Site};

const NAMESPACE: &str = "shop";
/// `db` on one node; who asks is on the same one and on the other.
const PODS: [(&str, usize); 3] = [("db", 0), ("near", 0), ("far", 1)];
const PORT: u16 = 5432;

fn named<'n>(name: &'n str, app: &'n str) -> Named<'n> {
    Named {
        namespace: NAMESPACE,
        name,
        app,
    }
}

/// Waits until connections to a place have this outcome over both families.
fn becomes(from: &Place, to: &Place, wanted: Outcome) {
    for v6 in [false, true] {
        service::becomes(from, to.at(v6, PORT), wanted);
    }
}

async fn status(site: &Site, pod: &str, status: &Value) {
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({"status": status}));
    let params = PatchParams::default();
    pods.patch_status(pod, &params, &patch).await.unwrap();
}

/// A pod on the network of a node, with that node's addresses.
async fn on_the_host(site: &Site, name: &str, node: usize) {
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), NAMESPACE);
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "nodeName": format!("n{node}"), "hostNetwork": true, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "main"}],
        },
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let place = site.cluster.node(node);
    let addresses = [json!({"ip": place.v4}), json!({"ip": place.v6})];
    let running = json!({"phase": "Running", "podIP": place.v4, "podIPs": addresses});
    status(site, name, &running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_with_an_address_of_its_own_is_a_peer() {
    let site = Site::new(2, &PODS, &[NAMESPACE]).await;
    for (name, node) in PODS {
        let pod = named(name, if name == "db" { "db" } else { "web" });
        site.schedule(pod, node).await;
        site.running(pod, &site.cluster.pod(name).place).await;
    }
    let place = |name: &str| &site.cluster.pod(name).place;
    let (db, near, far) = (place("db"), place("near"), place("far"));
    site.cluster.serve_all(&[PORT]);
    let from_web = json!({
        "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
    });
    site.policy(NAMESPACE, "db", &from_web).await;
    let _agents = [site.agent(0).await, site.agent(1).await];
    for from in [near, far] {
        becomes(from, db, Outcome::Answered);
    }

    // The other node is let in by no label of a pod that has its network; the pod's own node always is.
    on_the_host(&site, "guest", 1).await;
    on_the_host(&site, "host", 0).await;
    // This one's address is known when the other's is, too.
    site.relabel(named("near", "else")).await;
    becomes(near, db, Outcome::Silent);
    becomes(site.cluster.node(1), db, Outcome::Silent);
    becomes(site.cluster.node(0), db, Outcome::Answered);

    // Who has finished keeps its address in its status, and is no peer any more.
    status(&site, "far", &json!({"phase": "Succeeded"})).await;
    becomes(far, db, Outcome::Silent);
    // The next pod with the address is let in, or not, by its own labels.
    let other = named("next", "else");
    site.schedule(other, 1).await;
    site.running(other, far).await;
    site.relabel(named("near", "web")).await;
    becomes(near, db, Outcome::Answered);
    becomes(far, db, Outcome::Silent);
    site.relabel(named("next", "web")).await;
    becomes(far, db, Outcome::Answered);
}
