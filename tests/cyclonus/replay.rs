//! Builds the cluster of a step through our own parsers, and holds the model's verdicts to the tool's tables.

use std::fmt;

use ringfence::netpol::{Endpoint, Flow, Object, Pod, Port, Protocol, Snapshot, Verdict, parse};
use serde_json::{Value, json};

use crate::output::{Probe, Step};
use crate::table::PodRow;

/// A rule of the API by which cells differ from the tool's.
pub(crate) struct Exception {
    /// The rule in words.
    pub(crate) rule: &'static str,
    /// Where the API says so.
    pub(crate) source: &'static str,
    /// Whether a cell that differs differs by this rule.
    pub(crate) applies: fn(&Cell<'_>) -> bool,
    /// How many do.
    pub(crate) cells: usize,
}

/// One question that the model was asked.
pub(crate) struct Cell<'c> {
    pub(crate) from: &'c str,
    pub(crate) to: &'c str,
    pub(crate) verdict: &'c Verdict,
}

/// What has been compared so far.
pub(crate) struct Tally {
    exceptions: &'static [Exception],
    /// Cells that differ, for each exception.
    excepted: Vec<usize>,
    /// Cells of the tool's tables that the model was asked for.
    cells: usize,
    /// Those asked once more, about a twin, because a pod cannot block itself.
    twins: usize,
    /// Those asked once more, with `policyTypes` left out of policies.
    defaulted: usize,
    /// The policies that were left to the defaults.
    policies: usize,
    differences: Vec<String>,
}

/// The three tables of a step, and what the model has to say for them.
const TABLES: [&str; 3] = ["ingress", "egress", "combined"];

fn answers(verdict: &Verdict) -> [bool; 3] {
    [
        verdict.ingress.passes(),
        verdict.egress.passes(),
        verdict.allowed(),
    ]
}

impl Tally {
    pub(crate) fn new(exceptions: &'static [Exception]) -> Self {
        Self {
            exceptions,
            excepted: vec![0; exceptions.len()],
            cells: 0,
            twins: 0,
            defaulted: 0,
            policies: 0,
            differences: Vec::new(),
        }
    }

    /// Compares every cell of a step.
    ///
    /// The tool refuses policies without `policyTypes` and always writes them. Where they are what the API would fill
    /// in, the step is judged a second time without them.
    pub(crate) fn step(&mut self, title: &str, step: &Step) {
        let compared = self.judge(title, step, &step.policies);
        self.cells += compared;
        let mut left_out = 0;
        let mut without = step.policies.clone();
        for policy in &mut without {
            left_out += usize::from(leave_to_default(policy));
        }
        if left_out > 0 {
            let excepted = self.excepted.clone();
            self.defaulted += self.judge(&format!("{title}, without policyTypes"), step, &without);
            self.excepted = excepted;
            self.policies += left_out;
        }
    }

    /// How many cells there were.
    fn judge(&mut self, title: &str, step: &Step, policies: &[Value]) -> usize {
        let (snapshot, pods) = cluster(step, policies);
        let mut names: Vec<String> = step.pods.iter().map(name).collect();
        names.sort();
        for table in [&step.ingress, &step.egress, &step.combined] {
            assert_eq!(table.pods, names, "pods of {title}");
            assert_eq!(table.ports, step.ingress.ports, "ports of {title}");
        }
        let mut cells = 0;
        for (row, from_name) in names.iter().enumerate() {
            for (column, to_name) in names.iter().enumerate() {
                let (from, to) = (find(&pods, from_name), find(&pods, to_name));
                let ports = ports(step, to_name);
                for (index, (protocol, port)) in ports.into_iter().enumerate() {
                    let expected = [&step.ingress, &step.egress, &step.combined]
                        .map(|table| table.cells[row][column][index]);
                    let flow = Flow::new(Endpoint::Pod(from), Endpoint::Pod(to), protocol, port);
                    let verdict = snapshot.verdict(&flow);
                    cells += TABLES.len();
                    let cell = Cell {
                        from: from_name,
                        to: to_name,
                        verdict: &verdict,
                    };
                    self.compare(title, &flow, &cell, expected, true);
                    if row == column {
                        // Another pod that is the same in all that policies see: nothing excepts it.
                        let mut twin = from.clone();
                        twin.workload.name = format!("{}-twin", from.name()).as_str().into();
                        let flow = Flow {
                            from: Endpoint::Pod(&twin),
                            ..flow
                        };
                        let verdict = snapshot.verdict(&flow);
                        let cell = Cell {
                            verdict: &verdict,
                            ..cell
                        };
                        self.compare(title, &flow, &cell, expected, false);
                        self.twins += TABLES.len();
                    }
                }
            }
        }
        cells
    }

    fn compare(
        &mut self,
        title: &str,
        flow: &Flow<'_>,
        cell: &Cell<'_>,
        expected: [bool; 3],
        may_differ: bool,
    ) {
        let ours = answers(cell.verdict);
        for ((table, ours), theirs) in TABLES.into_iter().zip(ours).zip(expected) {
            if ours == theirs {
                continue;
            }
            let excepted = self
                .exceptions
                .iter()
                .position(|exception| (exception.applies)(cell));
            if let (Some(index), true) = (excepted, may_differ) {
                self.excepted[index] += 1;
            } else {
                let word = if theirs { "allowed" } else { "denied" };
                self.differences.push(format!(
                    "{title}: {flow}: cyclonus has it {word} in the table {table}, the model says {}",
                    cell.verdict
                ));
            }
        }
    }

    /// Fails if a cell differs that no exception speaks of, or an exception is not as it is written down.
    pub(crate) fn hold(&self) {
        let first: Vec<&str> = self
            .differences
            .iter()
            .map(|text| &**text)
            .take(20)
            .collect();
        assert!(
            first.is_empty(),
            "{} cells differ, among them:\n{}",
            self.differences.len(),
            first.join("\n")
        );
        for (exception, cells) in self.exceptions.iter().zip(&self.excepted) {
            assert_eq!(
                *cells, exception.cells,
                "cells that differ because {} ({})",
                exception.rule, exception.source
            );
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cells compared, {} of twins, {} with policyTypes left out of {} policies; {} differ",
            self.cells,
            self.twins,
            self.defaulted,
            self.policies,
            self.differences.len()
        )?;
        for (exception, cells) in self.exceptions.iter().zip(&self.excepted) {
            write!(f, "; {cells} excepted: {}", exception.rule)?;
        }
        Ok(())
    }
}

/// Leaves `policyTypes` out if the API fills in the same: Ingress always, and Egress where there are egress rules.
/// <https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/>
fn leave_to_default(policy: &mut Value) -> bool {
    let spec = policy["spec"].as_object_mut().expect("a spec");
    let has_egress = spec
        .get("egress")
        .and_then(Value::as_array)
        .is_some_and(|rules| !rules.is_empty());
    let default: &[&str] = if has_egress {
        &["Ingress", "Egress"]
    } else {
        &["Ingress"]
    };
    let written = spec.get("policyTypes").and_then(Value::as_array);
    let written: Vec<&str> = written
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let same = written.len() == default.len()
        && default.iter().all(|direction| written.contains(direction));
    same && spec.remove("policyTypes").is_some()
}

/// The cluster of a step, and its pods.
fn cluster(step: &Step, policies: &[Value]) -> (Snapshot, Vec<Pod>) {
    let values = values(step);
    let snapshot: Snapshot = values.iter().chain(policies).map(object).collect();
    let pods = values.iter().map(object).filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    });
    (snapshot, pods.collect())
}

/// The namespaces and pods of a step; a namespace comes once for each of its pods.
pub(crate) fn values(step: &Step) -> Vec<Value> {
    let mut values = Vec::new();
    for pod in &step.pods {
        let labels = labels(&pod.namespace_labels);
        values.push(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": pod.namespace, "labels": labels},
        }));
        values.push(pod_object(pod));
    }
    values
}

fn pod_object(pod: &PodRow) -> Value {
    let containers = pod.ports.iter().enumerate().map(|(index, port)| {
        let port = json!({
            "name": port.name, "containerPort": port.port.get(), "protocol": port.protocol.as_str(),
        });
        json!({"name": format!("container-{index}"), "ports": [port]})
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "labels": labels(&pod.labels)},
        "spec": {"containers": containers.collect::<Vec<_>>()},
        "status": {"phase": "Running", "podIP": pod.ip.to_string()},
    })
}

fn labels(labels: &[(String, String)]) -> Value {
    let labels = labels.iter();
    labels
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// An object of the model, all of whose fields are known.
pub(crate) fn object(value: &Value) -> Object {
    let parsed = parse(value)
        .unwrap_or_else(|error| panic!("{error} in {value}"))
        .expect("a kind of the model");
    assert_eq!(parsed.unknown_fields, [], "unknown fields in {value}");
    parsed.object
}

/// As the tables have it.
pub(crate) fn name(pod: &PodRow) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

fn find<'p>(pods: &'p [Pod], name: &str) -> &'p Pod {
    let mut pods = pods.iter();
    pods.find(|pod| name == format!("{}/{}", pod.namespace(), pod.name()))
        .expect("a pod of the step")
}

/// What the signs of a cell stand for, in the column of a pod.
pub(crate) fn ports(step: &Step, to: &str) -> Vec<(Protocol, Port)> {
    let Probe::One { port, protocol } = &step.probe else {
        return step.combined.ports.clone();
    };
    let pod = step.pods.iter().find(|pod| name(pod) == to);
    let own = &pod.expect("a pod of the step").ports;
    let meant = own
        .iter()
        .find(|own| own.name == *port && own.protocol == *protocol);
    let port = meant.map_or_else(|| crate::table::port(port), |own| own.port);
    vec![(*protocol, port)]
}
