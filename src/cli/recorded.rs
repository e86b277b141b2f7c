//! What `replay` and `suggest` share: records of flows, and the manifests around them.

use std::path::{Path, PathBuf};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

use super::inputs::Inputs;
use super::whole;
use crate::flows::{self, Format, Input, Limits, Recorded};
use crate::netpol::{Object, ObjectKey, Snapshot};

/// Records of flows.
#[derive(Debug, clap::Args)]
pub(super) struct Records {
    /// Files of recorded flows; `-` for standard input.
    #[arg(required = true, value_name = "FLOWS")]
    flows: Vec<PathBuf>,
    /// Their format. Without it: what the first line of each file tells.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Go on where records are broken: they are counted and told, and the exit code does not speak of them.
    #[arg(long)]
    allow_broken: bool,
    /// Addresses of the cluster's own pods and services. One of these that no pod among the manifests has is not taken
    /// for something outside, but told as unknown. May be given several times.
    #[arg(long, value_name = "CIDR")]
    pub(super) cluster_cidr: Vec<ipnet::IpNet>,
}

/// Records of flows that may be given beside what is asked about.
#[derive(Debug, clap::Args)]
pub(super) struct Beside {
    /// Files of recorded flows; `-` for standard input. May be given several times.
    #[arg(long, value_name = "FILE")]
    flows: Vec<PathBuf>,
    /// Their format. Without it: what the first line of each file tells.
    #[arg(long, value_enum, value_name = "FORMAT", requires = "flows")]
    format: Option<Format>,
    /// Addresses of the cluster's own pods and services: one of these that no known pod has is not taken for something outside.
    #[arg(long, value_name = "CIDR", requires = "flows")]
    pub(super) cluster_cidr: Vec<ipnet::IpNet>,
}

// === impl Beside ===

impl Beside {
    /// Reads all records; none where no file is given.
    pub(super) fn read(&self) -> anyhow::Result<Option<Recorded>> {
        if self.flows.is_empty() {
            return Ok(None);
        }
        let records = Records {
            flows: self.flows.clone(),
            format: self.format,
            allow_broken: false,
            cluster_cidr: Vec::new(),
        };
        records.read().map(Some)
    }

    /// Says that some of the records are broken, which the exit code is to tell; whether they are.
    pub(super) fn warn_of_broken(recorded: Option<&Recorded>) -> bool {
        let broken = recorded.map_or(0, |recorded| recorded.broken);
        if broken > 0 {
            whole::warn(&format!("{broken} records are broken and not counted"));
        }
        broken > 0
    }
}

// === impl Records ===

impl Records {
    /// Reads all records, with a bar on a terminal.
    pub(super) fn read(&self) -> anyhow::Result<Recorded> {
        let inputs: Vec<Input> = self.flows.iter().map(|path| input(path)).collect();
        if inputs
            .iter()
            .filter(|input| matches!(input, Input::Stdin))
            .count()
            > 1
        {
            bail!("standard input can be read once only");
        }
        let bar = bar(&self.flows);
        let recorded = flows::read(&inputs, self.format, &Limits::default(), &mut |bytes| {
            bar.inc(bytes);
        });
        bar.finish_and_clear();
        Ok(recorded?)
    }

    /// Whether what was read cannot be relied on: something in it is broken, and that was not allowed.
    pub(super) fn is_spoilt(&self, recorded: &Recorded) -> bool {
        recorded.broken > 0 && !self.allow_broken
    }
}

fn input(path: &Path) -> Input {
    match path.to_str() {
        Some("-") => Input::Stdin,
        Some(_) | None => Input::Path(path.to_owned()),
    }
}

/// A bar over all bytes; without a size where a stream has none. Nothing where standard error is no terminal.
fn bar(paths: &[PathBuf]) -> ProgressBar {
    let sizes = paths.iter().map(|path| std::fs::metadata(path).ok());
    let total: Option<u64> = sizes.map(|facts| facts.map(|facts| facts.len())).sum();
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    let form = "{spinner} {bytes}/{total_bytes} {bar:40} {bytes_per_sec}, {eta} to go";
    match ProgressStyle::with_template(form) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Manifests of which all must be good, without their network policies, and how many of these there were.
pub(super) fn without_policies(paths: &[PathBuf]) -> anyhow::Result<(Snapshot, usize)> {
    let folder = Inputs::of(paths.to_vec(), Vec::new(), Vec::new()).read()?;
    if let Some(error) = folder.first_error() {
        return Err(error.into());
    }
    let snapshot = folder.snapshot;
    let policies = snapshot
        .policies()
        .map(|policy| ObjectKey::NetworkPolicy(policy.reference()));
    let cluster = snapshot
        .cluster_policies()
        .map(|policy| ObjectKey::ClusterNetworkPolicy(policy.reference.clone()));
    let policies: Vec<ObjectKey> = policies.chain(cluster).collect();
    let staged = snapshot.staged_policies();
    let staged = staged.map(|staged| ObjectKey::StagedNetworkPolicy(staged.reference()));
    let staged: Vec<ObjectKey> = staged.collect();
    let bare = policies
        .iter()
        .chain(&staged)
        .fold(snapshot, |snapshot, policy| snapshot.without(policy));
    Ok((bare, policies.len()))
}

/// A snapshot with all objects of another one that are policies, or that it does not have itself.
pub(super) fn joined(under: &Snapshot, over: &Snapshot) -> Snapshot {
    let mut joined = under.clone();
    let cluster = over.cluster_policies().cloned();
    joined.extend(cluster.map(Object::ClusterNetworkPolicy));
    joined.extend(over.nodes().cloned().map(Object::Node));
    for state in over.namespaces() {
        joined.extend(state.object().cloned().map(Object::Namespace));
        joined.extend(state.services().cloned().map(Object::Service));
        joined.extend(state.policies().cloned().map(Object::NetworkPolicy));
        joined.extend(
            state
                .staged_policies()
                .cloned()
                .map(|staged| Object::StagedNetworkPolicy(Box::new(staged))),
        );
        joined.extend(state.pods().cloned().map(|pod| {
            if pod.is_template() {
                Object::Workload(pod)
            } else {
                Object::Pod(pod)
            }
        }));
    }
    joined
}
