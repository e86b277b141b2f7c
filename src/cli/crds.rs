//! `ringfence crds`: the definitions of Ringfence's own kinds, made of the very types that read them.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use super::Exit;
use crate::guard::enforcement::NodeEnforcement;
use crate::guard::exemption::ExemptionManifest;
use crate::guard::guardrail::GuardrailManifest;
use crate::guard::reachability::ReachabilityRuleManifest;
use crate::netpol::staged::StagedNetworkPolicyManifest;
use crate::report::yaml;

/// Arguments of `ringfence crds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence crds | kubectl apply --server-side -f -\n  \
    ringfence crds --output-dir deploy/crds")]
pub struct Args {
    /// Write one file a kind into this folder, instead of printing.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

/// Prints or writes the definitions, one document each.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    for definition in definitions() {
        let text = yaml::manifest(&definition, 0);
        let Some(folder) = &args.output_dir else {
            write!(std::io::stdout().lock(), "---\n{text}")?;
            continue;
        };
        let path = folder.join(format!("{}.yaml", definition.spec.names.plural));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Exit::Clean)
}

fn definitions() -> [CustomResourceDefinition; 5] {
    let mut definitions = [
        ExemptionManifest::crd(),
        GuardrailManifest::crd(),
        NodeEnforcement::crd(),
        ReachabilityRuleManifest::crd(),
        StagedNetworkPolicyManifest::crd(),
    ];
    let versions = definitions
        .iter_mut()
        .flat_map(|definition| &mut definition.spec.versions);
    let schemas = versions.filter_map(|version| version.schema.as_mut());
    schemas
        .filter_map(|schema| schema.open_api_v3_schema.as_mut())
        .for_each(leave_out_foreign_formats);
    definitions
}

/// Formats of Rust's numbers and of addresses: an API server does not know them and warns of each.
fn leave_out_foreign_formats(schema: &mut JSONSchemaProps) {
    let foreign =
        |format: &mut String| matches!(format.as_str(), "uint8" | "uint16" | "uint32" | "ip");
    schema.format.take_if(foreign);
    let properties = schema.properties.iter_mut().flatten();
    properties.for_each(|(_, property)| leave_out_foreign_formats(property));
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => leave_out_foreign_formats(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            items.iter_mut().for_each(leave_out_foreign_formats);
        }
        None => {}
    }
}
