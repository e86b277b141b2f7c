//! What network policies mean: the exact model of NetworkPolicy v1 and of ClusterNetworkPolicy
//! v1alpha2, and the one parser per kind that it needs.
//!
//! A JSON object goes through [`parse()`] once and becomes one of our own types; a [`Snapshot`] holds them and
//! answers [`Snapshot::verdict`] (may this flow pass, and why) and [`Snapshot::pod_coverage`] (which policies isolate).
//! Pure: no files, clock, environment, threads or logging here, and nothing that can panic.

// A panic in a gatekeeper is an outage or a hole; tests may still say `expect`.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

pub mod cluster_policy;
pub mod coverage;
pub mod field;
pub mod findings;
pub mod flow;
pub mod groups;
pub mod labels;
pub mod name;
pub mod namespace;
pub mod near_miss;
pub mod net;
pub mod node;
pub mod object;
pub mod parse;
pub mod pod;
pub mod policy;
pub mod port;
pub mod reach;
pub mod replay;
pub mod selector;
pub mod service;
pub mod snapshot;
pub mod staged;
pub mod suggest;
pub mod verdict;
pub mod workload;

pub(crate) mod decode;
mod meta;
mod problem;
pub(crate) mod spans;
#[cfg(test)]
pub(crate) mod testing;

pub use cluster_policy::{
    Action, ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterPorts, ClusterRule, Place,
    PodScope, Priority, Tier,
};
pub use coverage::{Coverage, Direction};
pub use field::{FieldPath, Segment};
pub use flow::{Endpoint, Flow};
pub use labels::{Annotations, Labels, NAMESPACE_NAME_LABEL};
pub use name::{
    ClusterPolicyKind, ClusterPolicyRef, NamespaceName, NodeName, ObjectName, PolicyKind,
    PolicyName, PolicyRef, PortName,
};
pub use namespace::{Namespace, SYSTEM_NAMESPACES};
pub use net::Family;
pub use node::Node;
pub use object::{Object, ObjectKey};
pub use parse::{Parsed, parse};
pub use pod::{Phase, Pod, Uid};
pub use policy::{Isolates, Isolation, NamespaceScope, NetworkPolicy, Peer, Peers, Ports, Rule};
pub use port::{ContainerPort, Port, PortMatch, PortSpec, Protocol};
pub use problem::{ParseError, Problem};
pub use reach::{PortSet, Reachability};
pub use selector::{Operator, Requirement, Selector};
pub use service::{Service, ServicePort, ServiceType, TargetPort};
pub use snapshot::{NamespaceState, Snapshot};
pub use staged::{Choice, Stage, StagedNetworkPolicy, Standing};
pub use verdict::{ClusterRuleRef, EndVerdict, NotHeld, RuleRef, Ruled, Verdict};
pub use workload::{WorkloadKind, WorkloadRef};
