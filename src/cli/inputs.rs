//! What several subcommands read: manifests, guardrails, policies in Rego.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::guard::decide::State;
use crate::guard::engine::PolicyEngine;
use crate::guard::exemption::Exemptions;
use crate::guard::guardrail::{Guardrail, Guardrails};
use crate::guard::reachability::ReachabilityRules;
use crate::guard::review::Kind;
use crate::k8s::folder::{self, Folder, Placed};
use crate::k8s::list::Cluster;
use crate::k8s::manifests::Input;
use crate::k8s::yaml::Limits;
use crate::rego::{PolicySet, RegoEngine, Trial};

/// Manifests and the guardrails that they are held to.
#[derive(Debug, clap::Args)]
pub(super) struct Inputs {
    /// Files or folders of manifests (YAML or JSON); `-` for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    demands: Demands,
}

/// What manifests are held to.
#[derive(Debug, clap::Args)]
pub(super) struct Demands {
    /// A file or folder with Guardrails (and Exemptions and reachability rules). Without it: the Guardrails among the
    /// manifests, else the built-in one.
    #[arg(long, value_name = "FILE")]
    guardrail: Vec<PathBuf>,
    /// A folder of your own policies in Rego, beside the built-in ones.
    #[arg(long, value_name = "DIR")]
    policies: Vec<PathBuf>,
}

/// The built-in policies in Rego, and those of these folders.
pub(super) fn engine(policies: &[PathBuf]) -> anyhow::Result<Arc<dyn PolicyEngine>> {
    let trial = if policies.is_empty() {
        Trial::None
    } else {
        Trial::by_this_program()?
    };
    Ok(Arc::new(RegoEngine::new(PolicySet::load(
        policies, &trial,
    )?)))
}

// === impl Inputs ===

impl Inputs {
    /// The same, when they were asked for one by one.
    pub(super) fn of(paths: Vec<PathBuf>, guardrail: Vec<PathBuf>, policies: Vec<PathBuf>) -> Self {
        Self {
            paths,
            demands: Demands {
                guardrail,
                policies,
            },
        }
    }

    /// Reads the manifests.
    pub(super) fn read(&self) -> anyhow::Result<Folder> {
        let limits = Limits::default();
        let inputs = self.paths.iter().map(|path| match path.to_str() {
            Some("-") => Input::read("<stdin>", std::io::stdin().lock(), &limits)
                .context("cannot read standard input"),
            Some(_) | None => Ok(Input::Path(path.clone())),
        });
        let inputs = inputs.collect::<anyhow::Result<Vec<Input>>>()?;
        let mut folder = folder::read(inputs, &limits);
        let demands = self.demands.read()?;
        folder.exemptions.extend(demands.exemptions);
        // A rule is told of where it stands, so it is judged like the manifests.
        let is_rule = |placed: &Placed| {
            let object = placed.review.object.as_ref();
            object.is_some_and(|object| matches!(object.parsed, Kind::ReachabilityRule(_)))
        };
        folder
            .objects
            .extend(demands.objects.into_iter().filter(is_rule));
        folder.rules.extend(demands.rules);
        Ok(folder)
    }

    /// The guardrails that the manifests are held to.
    pub(super) fn guardrails(&self, folder: &Folder) -> anyhow::Result<Guardrails> {
        self.demands.guardrails(folder)
    }

    /// The manifests as a cluster, with what they are held to.
    pub(super) fn state(&self, folder: &Folder) -> anyhow::Result<State> {
        Ok(State {
            snapshot: folder.snapshot.clone(),
            // Who says nothing of receipts says nothing of who enforces.
            guardrails: self.guardrails(folder)?.with_confirmations(
                (!folder.receipts.is_empty()).then(|| folder.receipts.iter().cloned().collect()),
            ),
            exemptions: Exemptions::new(folder.exemptions.clone()),
            reachability: ReachabilityRules::new(folder.rules.clone(), &folder.snapshot),
            engine: engine(&self.demands.policies)?,
        })
    }
}

// === impl Demands ===

impl Demands {
    /// Those that were named, else those among the manifests, else the built-in one.
    fn guardrails(&self, folder: &Folder) -> anyhow::Result<Guardrails> {
        let read = self.read()?;
        let has_any =
            !read.guardrails.is_empty() || !read.exemptions.is_empty() || !read.rules.is_empty();
        if !self.guardrail.is_empty() && !has_any {
            bail!(
                "--guardrail: neither a Guardrail nor an Exemption nor a ReachabilityRule in {}",
                self.guardrail[0].display()
            );
        }
        let named = read.guardrails;
        Ok(Guardrails::new(
            match (named.is_empty(), folder.guardrails.is_empty()) {
                (false, _) => named,
                (true, false) => folder.guardrails.clone(),
                (true, true) => vec![Guardrail::built_in()?],
            },
        ))
    }

    /// A cluster as it was read, with what it is held to: the guardrails that were named, else its own, else the
    /// built-in one; exemptions and reachability rules that were named come to its own.
    pub(super) fn state_of(&self, cluster: &Cluster) -> anyhow::Result<State> {
        let named = self.read()?;
        let own = Folder {
            guardrails: cluster.guardrails.clone(),
            ..Folder::default()
        };
        let mut exemptions = cluster.exemptions.clone();
        exemptions.extend(named.exemptions);
        let mut rules = cluster.rules.clone();
        rules.extend(named.rules);
        Ok(State {
            snapshot: cluster.snapshot.clone(),
            guardrails: self
                .guardrails(&own)?
                .with_confirmations(Some(cluster.confirmations.clone())),
            exemptions: Exemptions::new(exemptions),
            reachability: ReachabilityRules::new(rules, &cluster.snapshot),
            engine: engine(&self.policies)?,
        })
    }

    fn read(&self) -> anyhow::Result<Folder> {
        let inputs = self.guardrail.iter().cloned().map(Input::Path).collect();
        let folder = folder::read(inputs, &Limits::default());
        match folder.first_error() {
            Some(error) => Err(anyhow::Error::new(error).context("--guardrail")),
            None => Ok(folder),
        }
    }
}
