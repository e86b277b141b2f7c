//! What the CNI plugin tells and asks: pods that are about to start are held back until their rules are in force.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::Enforcer;
use crate::agent::cni::ask::{Answer, Command, PodName, Request};
use crate::agent::cni::kept::{Given, Kept, Sandbox};
use crate::agent::cni::server::Asked;
use crate::agent::links::Links;
use crate::agent::ports::look;
use crate::netpol::{Uid, WorkloadKind, WorkloadRef};
use crate::ruleset::Interface;

/// How long a pod that is about to start is held back for the API server to tell of it. The plugin waits a little longer.
const STARTING: Duration = Duration::from_secs(8);

impl Enforcer {
    /// Keeps what the CNI plugin tells beside its socket, and takes up what the agent before this one kept there.
    #[must_use]
    pub fn keeping_beside(mut self, socket: &Path) -> Self {
        let mut kept = Kept::beside(socket);
        let sandboxes = kept.read();
        self.kept = Some(kept);
        let Ok(links) = Links::read() else {
            return self;
        };
        for sandbox in sandboxes {
            let Some(port) = Interface::parse(&sandbox.interface) else {
                continue;
            };
            match links.number(&port) {
                Some(number) if number == sandbox.number => {}
                Some(_) => {
                    self.ports.reuse(port);
                    continue;
                }
                None => continue,
            }
            if let Some(pod) = &sandbox.pod {
                let workload = workload_of(&pod.namespace, &pod.name);
                let uid = pod.uid.as_deref().and_then(Uid::parse);
                let addresses = pod.addresses.clone();
                self.overlay
                    .give_again(&workload, uid, sandbox.id.clone(), addresses);
            }
            self.ports.name_again(sandbox.id, port, sandbox.number);
        }
        self
    }

    /// Keeps what was told of sandboxes that are there.
    fn keep(&mut self) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        let of_sandbox = |(id, port, number): (&str, &Interface, u32)| Sandbox {
            id: id.to_owned(),
            interface: port.as_str().to_owned(),
            number,
            pod: self.overlay.of_sandbox(id).map(|(pod, given)| Given {
                namespace: pod.namespace.to_string(),
                name: pod.name.to_string(),
                uid: given.uid.map(|uid| uid.to_string()),
                addresses: given.addresses.clone(),
            }),
        };
        let sandboxes = self.ports.sandboxes().map(of_sandbox).collect();
        tokio::task::block_in_place(|| kept.write(sandboxes));
    }

    /// Forgets what was told of interfaces that are gone, and of sandboxes that went without a word.
    pub(super) fn forget_gone(&mut self, links: &Links) {
        let (was_behind, sandboxes) = self.ports.forget_gone(|port| links.number(port));
        if !was_behind && sandboxes.is_empty() {
            return;
        }
        self.overlay.forget(&sandboxes);
        self.know_ports();
        self.go_on(&[]);
        self.keep();
    }

    /// The CNI plugin asks.
    pub(super) fn asked(&mut self, asked: Asked) {
        let Request {
            command,
            container_id,
            pod,
            addresses,
            host_interface,
            ..
        } = &asked.request;
        let workload = pod.as_ref().map(workload);
        match (command, workload) {
            (Command::Add, Some(workload)) => {
                self.ports
                    .give(container_id, addresses, host_interface.as_deref(), look);
                self.know_ports();
                let uid = pod.as_ref().and_then(uid_of);
                let (id, addresses) = (container_id.clone(), addresses.clone());
                self.overlay.give(workload, uid, id, addresses);
                self.keep();
                self.waiting.push((asked, Instant::now() + STARTING));
                if self.started {
                    self.go_on(&[]);
                    self.answer_waiting();
                }
            }
            (Command::Del, Some(workload)) => {
                self.ports.take(container_id);
                self.overlay.take(&workload, container_id);
                self.know_ports();
                self.keep();
                if self.started {
                    self.go_on(&[]);
                }
                reply(asked, Answer::Ready);
            }
            // Containers that Kubernetes did not start have no policies.
            (Command::Add | Command::Del, None) => reply(asked, Answer::Ready),
            (Command::Check, _) => {
                let answer = self.readiness_in_words().map_or(Answer::Ready, refused);
                reply(asked, answer);
            }
        }
    }

    /// Lets the pods go on whose rules are in force, and tells those whose time is over.
    pub(super) fn answer_waiting(&mut self) {
        let now = Instant::now();
        for (asked, until) in std::mem::take(&mut self.waiting) {
            let Some(reason) = self.hindrance(&asked.request) else {
                reply(asked, Answer::Ready);
                continue;
            };
            // The plugin that gave up has closed its end.
            if now < until && !asked.reply.is_closed() {
                self.waiting.push((asked, until));
            } else {
                reply(asked, refused(reason));
            }
        }
    }

    /// Why a pod may not go on yet.
    fn hindrance(&self, request: &Request) -> Option<String> {
        let name = request.pod.as_ref()?;
        if let Some(reason) = self.readiness_in_words() {
            return Some(reason);
        }
        let pod = self.raw.pod(&workload(name));
        let uid = uid_of(name);
        let is_known = pod.is_some_and(|pod| uid.is_none() || pod.uid.is_none() || pod.uid == uid);
        (!is_known).then(|| {
            format!(
                "the API server has not told the agent of the pod {}/{} yet",
                name.namespace, name.name
            )
        })
    }

    fn readiness_in_words(&self) -> Option<String> {
        if !self.started {
            return Some("the agent does not know the cluster yet".to_owned());
        }
        if self.kernel.is_doubtful() {
            return Some("the kernel does not take the rules, see the agent's log".to_owned());
        }
        self.unheard.clone()
    }

    /// When the next pod that waits has waited long enough.
    pub(super) fn patience(&self) -> Option<Instant> {
        self.waiting.iter().map(|(_, until)| *until).min()
    }
}

/// Which pod of its name it is. The kubelet names a static pod by a digest without hyphens, and the API server has a mirror of it
/// with another identity.
fn uid_of(name: &PodName) -> Option<Uid> {
    let uid = name.uid.as_deref().filter(|uid| uid.contains('-'));
    uid.and_then(Uid::parse)
}

/// The pod that the runtime names, as the model knows it.
fn workload(name: &PodName) -> WorkloadRef {
    workload_of(&name.namespace, &name.name)
}

fn workload_of(namespace: &str, name: &str) -> WorkloadRef {
    WorkloadRef {
        kind: WorkloadKind::Pod,
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn reply(asked: Asked, answer: Answer) {
    // A plugin that gave up asks again, or the runtime does.
    let _ = asked.reply.send(answer);
}

fn refused(message: String) -> Answer {
    Answer::Refused { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_pod_is_known_by_its_name() {
        let named = |uid: Option<&str>| PodName {
            namespace: "kube-system".to_owned(),
            name: "proxy-node-1".to_owned(),
            uid: uid.map(str::to_owned),
        };
        assert_eq!(uid_of(&named(None)), None);
        let digest = "0b1c4c2e6a0e4b0f9a53000000000001";
        assert_eq!(uid_of(&named(Some(digest))), None);
        let uid = "0b1c4c2e-6a0e-4b0f-9a53-000000000001";
        assert_eq!(uid_of(&named(Some(uid))), Uid::parse(uid));
        assert!(Uid::parse(uid).is_some());
    }
}
