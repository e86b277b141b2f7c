//! `ringfence staged promote`: a NetworkPolicy in the place of a policy on trial.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::Value;
use similar::TextDiff;

use super::super::cluster::ClusterArgs;
use super::super::inputs::Inputs;
use super::super::{Exit, one_thread, whole};
use crate::k8s::live::Kind;
use crate::netpol::staged::promoted;
use crate::netpol::{self, Object};
use crate::report::yaml;

/// Arguments of `ringfence staged promote`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence staged report --context prod --namespace shop       first: what it would break\n  \
    ringfence staged promote shop/web --context prod --dry-run    what would be written\n  \
    ringfence staged promote shop/web --context prod\n  \
    ringfence staged promote shop/web deploy/ > web.yaml          the manifest, for Git\n\n\
    The NetworkPolicy has the name, the labels, the annotations and the rules of the policy on trial. It is written \
    first, and judged as any other by the webhook; only then the trial is ended. A NetworkPolicy of that name that says \
    something else is left as it is, with the difference, unless --force is given. Where StagedNetworkPolicies are kept \
    in Git, take the one away there: it would come back.\n\n\
    Exit codes: 0 promoted or printed, 1 a NetworkPolicy of that name says something else, 2 it could not be done.")]
pub(super) struct Args {
    /// The policy on trial, as NAMESPACE/NAME.
    #[arg(value_name = "NAMESPACE/NAME", value_parser = parse_name)]
    policy: (String, String),
    /// Files or folders of manifests to look for it in: the NetworkPolicy is printed. Without one: a cluster, which is changed.
    #[arg(value_name = "PATH", conflicts_with_all = ["kubeconfig", "context", "dry_run"])]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Put it in the place of a NetworkPolicy that says something else.
    #[arg(long)]
    force: bool,
    /// Print what would be written. The API server and its webhooks are asked, and nothing is changed.
    #[arg(long)]
    dry_run: bool,
}

/// Who writes, by name of the field manager.
const MANAGER: &str = "ringfence-promote";

/// Promotes, or says why not.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.paths.is_empty() {
        return one_thread()?.block_on(async {
            let client = args.cluster.connect_from_outside().await?;
            in_cluster(args, &client).await
        });
    }
    let (namespace, name) = &args.policy;
    let folder = Inputs::of(args.paths.clone(), Vec::new(), Vec::new()).read()?;
    let of_kind = |wanted: &'static str| {
        let (namespace, name) = (namespace.as_str(), name.as_str());
        let mut objects = folder.objects.iter();
        objects.find_map(move |placed| {
            let review = &placed.review;
            let is_it = review.kind == wanted
                && review.name == *name
                && review
                    .namespace
                    .as_ref()
                    .is_some_and(|own| own.as_str() == namespace);
            is_it.then(|| review.object.as_ref().map(|subject| subject.value.clone()))?
        })
    };
    let Some(staged) = of_kind("StagedNetworkPolicy") else {
        bail!("there is no StagedNetworkPolicy {namespace}/{name} among the manifests");
    };
    let manifest = made_of(&staged)?;
    let there = of_kind("NetworkPolicy");
    whole::snapshot(folder)?;
    if !may_take_the_place(there.as_ref(), &manifest, args)? {
        return Ok(Exit::Findings);
    }
    anstream::print!("{}", yaml::manifest(&manifest, 0));
    Ok(Exit::Clean)
}

async fn in_cluster(args: &Args, client: &Client) -> anyhow::Result<Exit> {
    let (namespace, name) = &args.policy;
    let resource = Kind::StagedNetworkPolicy.resource();
    let trials: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let found = trials.get_opt(name).await;
    let found =
        found.with_context(|| format!("cannot read StagedNetworkPolicy {namespace}/{name}"))?;
    let Some(staged) = found else {
        bail!("the cluster has no StagedNetworkPolicy {namespace}/{name}");
    };
    let manifest = made_of(&serde_json::to_value(&staged)?)?;
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let there = policies.get_opt(name).await;
    let there = there.with_context(|| format!("cannot read NetworkPolicy {namespace}/{name}"))?;
    let said = there.as_ref().map(serde_json::to_value).transpose()?;
    if !may_take_the_place(said.as_ref(), &manifest, args)? {
        return Ok(Exit::Findings);
    }
    if args.dry_run {
        anstream::print!("{}", yaml::manifest(&manifest, 0));
    }
    write(&policies, there, manifest, args).await?;
    if args.dry_run {
        anstream::eprintln!("the API server would take it; nothing is changed");
        return Ok(Exit::Clean);
    }
    // Another version of it is another trial, which nobody has promoted.
    let only_this = DeleteParams {
        preconditions: Some(Preconditions {
            uid: staged.metadata.uid.clone(),
            resource_version: staged.metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    let ended = trials.delete(name, &only_this).await;
    ended.with_context(|| {
        format!("NetworkPolicy {namespace}/{name} is in force, but the trial goes on beside it")
    })?;
    anstream::println!("NetworkPolicy {namespace}/{name} is in force for all pods that it selects");
    Ok(Exit::Clean)
}

/// Writes the policy, in the place of one that is there.
async fn write(
    policies: &Api<NetworkPolicy>,
    there: Option<NetworkPolicy>,
    manifest: Value,
    args: &Args,
) -> anyhow::Result<()> {
    let as_us = PostParams {
        dry_run: args.dry_run,
        field_manager: Some(MANAGER.to_owned()),
    };
    let mut policy: NetworkPolicy = serde_json::from_value(manifest)?;
    let (namespace, name) = &args.policy;
    let written = match there {
        None => policies.create(&as_us, &policy).await,
        Some(there) => {
            // What others have noted on it stays, and nobody else may have changed it since it was looked at.
            let own = std::mem::take(&mut policy.metadata);
            policy.metadata = there.metadata;
            policy.metadata.managed_fields = None;
            let labels = policy.metadata.labels.get_or_insert_default();
            labels.extend(own.labels.unwrap_or_default());
            let annotations = policy.metadata.annotations.get_or_insert_default();
            annotations.extend(own.annotations.unwrap_or_default());
            policies.replace(name, &as_us, &policy).await
        }
    };
    written.with_context(|| format!("NetworkPolicy {namespace}/{name} is not written"))?;
    Ok(())
}

/// The NetworkPolicy that a policy on trial becomes; an error where it is none.
fn made_of(staged: &Value) -> anyhow::Result<Value> {
    if let Err(error) = netpol::parse(staged) {
        bail!("the policy on trial is not understood: {error}");
    }
    Ok(promoted(staged))
}

/// Whether a policy may be written where one may be already. What differs is told.
fn may_take_the_place(
    there: Option<&Value>,
    manifest: &Value,
    args: &Args,
) -> anyhow::Result<bool> {
    let Some(there) = there else {
        return Ok(true);
    };
    let spec = |value: &Value| -> anyhow::Result<Value> {
        let mut value = value.clone();
        // The members of a typed answer do not say what they are.
        value["apiVersion"] = "networking.k8s.io/v1".into();
        value["kind"] = "NetworkPolicy".into();
        match netpol::parse(&value).map(|parsed| parsed.map(|parsed| parsed.object)) {
            Ok(Some(Object::NetworkPolicy(policy))) => Ok(policy.manifest()["spec"].clone()),
            Ok(_) => bail!("no NetworkPolicy"),
            Err(error) => bail!("the NetworkPolicy is not understood: {error}"),
        }
    };
    let (old, new) = (spec(there)?, spec(manifest)?);
    if old == new {
        return Ok(true);
    }
    let (namespace, name) = &args.policy;
    anstream::eprintln!("NetworkPolicy {namespace}/{name} is there and says something else:");
    let (old, new) = (yaml::manifest(&old, 0), yaml::manifest(&new, 0));
    for line in difference(&old, &new) {
        anstream::eprintln!("  {line}");
    }
    if !args.force {
        anstream::eprintln!("not promoted; give --force to put the policy on trial in its place");
    }
    Ok(args.force)
}

/// The lines of two texts: those of both, those of the first only with `-`, those of the second only with `+`.
fn difference(old: &str, new: &str) -> Vec<String> {
    let lines = TextDiff::from_lines(old, new);
    let lines = lines.iter_all_changes().map(|line| {
        let text = line.value().trim_end_matches('\n');
        // A space, `-` or `+`.
        format!("{} {text}", line.tag())
    });
    lines.collect()
}

fn parse_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("must be NAMESPACE/NAME, such as shop/web".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_every_line_of_both_texts() {
        let lines = difference("a\nb\nc\n", "a\nx\nc\nd\n");
        assert_eq!(lines, ["  a", "- b", "+ x", "  c", "+ d"]);
        assert_eq!(difference("", "a"), ["+ a"]);
        assert_eq!(difference("a", ""), ["- a"]);
    }
}
