use std::io::Cursor;

use super::*;
use crate::netpol::replay::Actor;

fn read_all(text: &str, format: Option<Format>, limits: &Limits) -> Result<Recorded, FlowsError> {
    let mut recorded = Recorded::default();
    let file: Arc<str> = Arc::from("flows");
    let stream = Cursor::new(text.to_owned());
    stream::read(&file, stream, format, limits, &mut recorded, &mut |_| {})?;
    Ok(recorded)
}

fn recorded(text: &str) -> Recorded {
    read_all(text, None, &Limits::default()).expect("a known format")
}

fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Address(address) => address.to_string(),
        Actor::Node { name, address } => format!("node {name} {address:?}"),
        Actor::Unknown(reason) => format!("? {reason}"),
        Actor::Pod(pod) => format!(
            "{}/{} workload {:?} labels {:?} at {:?} on {:?}",
            pod.namespace,
            pod.name.as_ref().map_or("", |name| name.as_str()),
            pod.workload,
            pod.labels,
            pod.address,
            pod.node
        ),
    }
}

/// Everything in it, a line each, in the order of the texts.
fn seen(recorded: &Recorded) -> String {
    let actors: Vec<String> = recorded.observations.actors().map(actor).collect();
    let flows = recorded.observations.iter().map(|(flow, tally)| {
        format!(
            "{}\n  -> {}\n  {} {}: {} allowed, {} denied",
            actors[flow.from],
            actors[flow.to],
            flow.protocol,
            flow.port,
            tally.allowed(),
            tally.denied()
        )
    });
    let mut lines: Vec<String> = flows.collect();
    lines.sort();
    lines.push(format!(
        "records {} passed over {:?}",
        recorded.records, recorded.passed_over
    ));
    let broken = recorded.shown.iter();
    lines
        .extend(broken.map(|broken| format!("{}:{}: {}", broken.file, broken.line, broken.reason)));
    lines.join("\n")
}

const POD: &str = r#""source":{"ID":1501,"identity":39459,"namespace":"shop","labels":["k8s:app=web","k8s:io.kubernetes.pod.namespace=shop","k8s:io.cilium.k8s.policy.cluster=default"],"pod_name":"web-64cbf459c4-q4tr9","workloads":[{"name":"web","kind":"Deployment"}]}"#;

fn hubble(rest: &str) -> String {
    format!(
        r#"{{"flow":{{"IP":{{"source":"10.0.1.13","destination":"10.0.1.178","ipVersion":"IPv4"}},{POD},{rest},"node_name":"n1","Type":"L3_L4","event_type":{{"type":4}}}},"node_name":"n1","time":"2026-01-01T00:00:00Z"}}"#
    )
}

#[test]
fn hubble_is_read_with_replies_and_both_observers_in_mind() {
    let to = r#""destination":{"identity":2,"labels":["reserved:world"]},"l4":{"TCP":{"source_port":40000,"destination_port":443}}"#;
    let host = r#""destination":{"identity":1,"labels":["reserved:host"]},"l4":{"UDP":{"source_port":4,"destination_port":53}}"#;
    let health = r#""destination":{"identity":4,"labels":["reserved:health"]},"l4":{"SCTP":{"destination_port":9}}"#;
    let lines = [
        hubble(&format!(
            r#"{to},"verdict":"FORWARDED","is_reply":false,"traffic_direction":"EGRESS""#
        )),
        hubble(&format!(
            r#"{to},"verdict":"FORWARDED","is_reply":false,"traffic_direction":"INGRESS""#
        )),
        hubble(&format!(
            r#"{to},"verdict":"FORWARDED","is_reply":true,"traffic_direction":"INGRESS""#
        )),
        hubble(&format!(
            r#"{to},"verdict":"FORWARDED","traffic_direction":"INGRESS""#
        )),
        hubble(&format!(
            r#"{to},"verdict":"DROPPED","drop_reason_desc":"POLICY_DENIED","traffic_direction":"EGRESS""#
        )),
        hubble(&format!(
            r#"{to},"verdict":"DROPPED","drop_reason_desc":"STALE_OR_UNROUTABLE_IP""#
        )),
        hubble(&format!(r#"{to},"verdict":"TRACED""#)),
        hubble(&format!(
            r#"{host},"verdict":"FORWARDED","is_reply":false,"traffic_direction":"EGRESS""#
        )),
        hubble(&format!(
            r#"{health},"verdict":"REDIRECTED","is_reply":false"#
        )),
        hubble(
            r#""destination":{},"l4":{"ICMPv4":{"type":8}},"verdict":"FORWARDED","is_reply":false"#,
        ),
        r#"{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"9"},"node_name":"n1"}"#
            .to_owned(),
        r#"{"node_status":{"state_change":"NODE_CONNECTED"},"node_name":"n1"}"#.to_owned(),
        hubble(&format!(r#"{to},"verdict":"FORW"#)),
    ];
    insta::assert_snapshot!("hubble", seen(&recorded(&lines.join("\n"))));
}

#[test]
fn calico_is_read_with_its_placeholders_types_and_reporters() {
    let wep = r#""source_ip":null,"source_name":"-","source_name_aggr":"web-755cdc7957-*","source_namespace":"shop","source_type":"wep","source_labels":{"labels":["app=web","pod-template-hash=755cdc7957"]}"#;
    let line = |to: &str, rest: &str| {
        format!(r#"{{"start_time":1,"end_time":2,{wep},{to},{rest},"policies":null}}"#)
    };
    let pub_ = r#""dest_ip":"203.0.113.5","dest_name":"-","dest_name_aggr":"pub","dest_namespace":"-","dest_type":"net","dest_labels":null"#;
    let joined = r#""dest_ip":null,"dest_name":"-","dest_name_aggr":"pvt","dest_namespace":"-","dest_type":"net","dest_labels":null"#;
    let hep = r#""dest_ip":"10.0.0.2","dest_name":"node02","dest_name_aggr":"node02","dest_namespace":"-","dest_type":"hep","dest_labels":{"labels":[]}"#;
    let api = r#""dest_ip":null,"dest_name":"-","dest_name_aggr":"api-7d4899b484-*","dest_namespace":"shop","dest_type":"wep","dest_labels":null"#;
    let lines = [
        line(
            pub_,
            r#""dest_port":443,"proto":"tcp","action":"allow","reporter":"src","num_flows":7"#,
        ),
        line(
            joined,
            r#""dest_port":443,"proto":"tcp","action":"allow","reporter":"src","num_flows":2"#,
        ),
        line(
            hep,
            r#""dest_port":10250,"proto":"6","action":"allow","reporter":"src","num_flows":1"#,
        ),
        line(
            api,
            r#""dest_port":8080,"proto":"tcp","action":"allow","reporter":"src","num_flows":5"#,
        ),
        line(
            api,
            r#""dest_port":8080,"proto":"tcp","action":"allow","reporter":"dst","num_flows":3"#,
        ),
        line(
            api,
            r#""dest_port":8080,"proto":"tcp","action":"deny","reporter":"dst","num_flows":2"#,
        ),
        line(
            api,
            r#""dest_port":0,"proto":"icmp","action":"allow","reporter":"dst","num_flows":1"#,
        ),
        line(
            api,
            r#""dest_port":null,"proto":"udp","action":"allow","reporter":"dst","num_flows":1"#,
        ),
    ];
    insta::assert_snapshot!("calico", seen(&recorded(&lines.join("\n"))));
}

#[test]
fn our_own_records_are_read_strictly() {
    let lines = [
        r#"{"from":{"namespace":"shop","workload":"Deployment/web","labels":{"app":"web"}},"to":{"ip":"192.0.2.1"},"port":443,"verdict":"allowed","count":3}"#,
        r#"{"from":{"namespace":"shop","pod":"web-1","ip":"10.0.0.1"},"to":{"node":"n1"},"protocol":"udp","port":53,"verdict":"denied","time":"2026-01-01T00:00:00Z"}"#,
        r#"{"from":{"ip":"192.0.2.1"},"to":{},"protocol":"SCTP","port":1,"verdict":"allowed"}"#,
        "",
        r#"{"from":{"ip":"192.0.2.1"},"to":{"ip":"10.0.0.999"},"port":1,"verdict":"allowed"}"#,
        r#"{"from":{"ip":"192.0.2.1"},"to":{"ip":"10.0.0.9"},"port":0,"verdict":"allowed"}"#,
        r#"{"from":{"ip":"192.0.2.1"},"to":{"ip":"10.0.0.9"},"port":1,"verdict":"maybe"}"#,
        r#"{"from":{"ip":"192.0.2.1"},"to":{"ip":"10.0.0.9"},"port":1,"verdict":"allowed","label":1}"#,
        r#"{"from":{"namespace":"Shop","pod":"x"},"to":{"ip":"10.0.0.9"},"port":1,"verdict":"allowed"}"#,
        r#"{"from":{"pod":"x"},"to":{"ip":"10.0.0.9"},"port":1,"verdict":"allowed"}"#,
        r#"{"from":{"namespace":"shop","labels":{"a b":"c"}},"to":{"ip":"10.0.0.9"},"port":1,"verdict":"allowed"}"#,
        r#"{"from":{"ip":"192.0.2.1"},"to":{"ip":"10.0.0.9"},"por"#,
    ];
    insta::assert_snapshot!("own", seen(&recorded(&lines.join("\r\n"))));
}

#[test]
fn csv_is_read_by_its_header() {
    let text = "\u{feff}from_namespace,from_labels,to_ip,\"port\",protocol,verdict,count\n\
        shop,\"app=web;tier=front\",192.0.2.1,443,TCP,allowed,2\n\
        shop,app=web,192.0.2.1,53,udp,denied,\n\
        shop,app=web,192.0.2.1,,udp,denied,\n\
        shop,app=web\n\
        shop,\"app=web,192.0.2.1,53,udp,denied,\n";
    insta::assert_snapshot!("csv", seen(&recorded(text)));
    for (header, problem) in [
        (
            "from_ip,port",
            "flows:1: the header has no column `verdict`",
        ),
        (
            "from_ip,verdict,port,port",
            "flows:1: column 3 of the header stands twice",
        ),
        (
            "from_host,verdict,port",
            "flows:1: the header has an unknown column \"from_host\"",
        ),
    ] {
        let error = read_all(header, None, &Limits::default()).expect_err("a bad header");
        assert_eq!(error.to_string(), problem);
    }
}

#[test]
fn what_is_of_no_known_format_is_an_error_with_its_line() {
    let told = |text| {
        read_all(text, None, &Limits::default())
            .expect_err("no format")
            .to_string()
    };
    insta::assert_snapshot!("no-format-1", told("\n\nhello world"));
    insta::assert_snapshot!("no-format-2", told("[{}]"));
    insta::assert_snapshot!("no-format-3", told("{\"a\": 1}"));
    insta::assert_snapshot!("no-format-4", told("{\"a\": 1"));
    assert_eq!(recorded("").records, 0);
    // Said, not told: then the first line is broken like any other.
    let said = read_all("{\"a\": 1", Some(Format::Hubble), &Limits::default()).expect("said");
    assert_eq!((said.records, said.broken), (1, 1));
}

#[test]
fn blocks_do_not_change_what_is_read() {
    let line = |number: usize| {
        format!(
            r#"{{"from":{{"namespace":"shop","labels":{{"app":"a{}"}}}},"to":{{"ip":"192.0.2.{}"}},"port":443,"verdict":"allowed"}}"#,
            number % 7,
            number % 5
        )
    };
    let mut lines: Vec<String> = (0..500).map(line).collect();
    lines[123] = "{broken".to_owned();
    lines[400] = r#"{"from":{"namespace":"shop","labels":{"a\/b.c":"x"}},"to":{"ip":"192\u002e0.2.9"},"port":1,"verdict":"allowed"}"#.to_owned();
    lines[401] = "x".repeat(5_000);
    let text = lines.join("\n");
    let limits = |block| Limits {
        block,
        line: 1_000,
        ..Limits::default()
    };
    let whole = seen(&read_all(&text, None, &limits(1 << 20)).expect("reads"));
    assert!(
        whole.contains("flows:124:") && whole.contains("flows:402: longer than 1000 bytes"),
        "{whole}"
    );
    assert!(whole.contains("192.0.2.9"), "{whole}");
    for block in [1, 7, 64, 1_000, 4_096] {
        assert_eq!(
            seen(&read_all(&text, None, &limits(block)).expect("reads")),
            whole,
            "{block}"
        );
    }
}

#[test]
fn more_different_flows_than_may_be_held_are_an_error() {
    let line = |port: u16| {
        format!(
            r#"{{"from":{{"ip":"192.0.2.1"}},"to":{{"ip":"192.0.2.2"}},"port":{port},"verdict":"allowed"}}"#
        )
    };
    let text = (1..100).map(line).collect::<Vec<String>>().join("\n");
    let limits = Limits {
        flows: 50,
        ..Limits::default()
    };
    let error = read_all(&text, None, &limits).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "flows: more than 50 different flows; read fewer files at a time"
    );
}

#[test]
fn hubble_tells_the_labels_of_namespaces() {
    let with = r#""k8s:io.cilium.k8s.namespace.labels.env=prod","k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop","k8s:app=web""#;
    let record = hubble(
        r#""destination":{"namespace":"data","pod_name":"db-0","labels":["k8s:app=db"]},"l4":{"TCP":{"destination_port":5432}},"verdict":"FORWARDED","is_reply":false"#,
    );
    let recorded = recorded(&record.replace(r#""k8s:app=web""#, with));
    let pods = recorded.observations.actors().map(|actor| match actor {
        Actor::Pod(pod) => {
            let labels = pod.labels.as_ref().map(ToString::to_string);
            let namespace = pod.namespace_labels.as_ref().map(ToString::to_string);
            (labels.expect("labels"), namespace)
        }
        _ => panic!("{actor:?}"),
    });
    let mut pods: Vec<_> = pods.collect();
    pods.sort();
    let of_shop = "env=prod,kubernetes.io/metadata.name=shop".to_owned();
    assert_eq!(
        pods,
        [
            ("app=db".to_owned(), None),
            ("app=web".to_owned(), Some(of_shop))
        ]
    );
}
