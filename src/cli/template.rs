//! `ringfence template`: lists templates of policies and makes policies of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Exit, outputs, style};
use crate::guard::template::{self, COMMON, Parameter, TEMPLATES};
use crate::report::{counted, yaml};

/// Arguments of `ringfence template`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the templates with their parameters and defaults.
    List(ListArgs),
    /// Make the policies of a template.
    Render(RenderArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only this template.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// How to print the list.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ListOutput::Text)]
    output: ListOutput,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    ringfence template render default-deny --set namespace=shop --set owner=team-shop\n  \
    ringfence template render backend-to-database --set owner=team-data \\\n      \
    --set from=app.kubernetes.io/name=orders-api --set to=app.kubernetes.io/name=postgres\n  \
    ringfence template render egress-to-networks --set namespace=shop --set owner=team-shop \\\n      \
    --set networks=partners=203.0.113.0/24,office=198.51.100.0/24\n  \
    ringfence template render default-deny --set namespace=shop --set owner=team-shop \\\n      \
    --kustomize -o components/default-deny\n\n\
    `ringfence template list NAME` has the parameters. What is made passes `ringfence check`.")]
struct RenderArgs {
    /// The template.
    #[arg(value_name = "NAME")]
    name: String,
    /// A parameter; what stands after the first `=` is its value.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Write a Kustomize component: a file for each policy and a kustomization.yaml. Needs -o.
    #[arg(long, requires = "folder")]
    kustomize: bool,
    /// Write a file for each policy into this folder, instead of all to standard output.
    #[arg(long = "output-dir", short = 'o', value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write over files that are there already.
    #[arg(long, requires = "folder")]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListOutput {
    /// For people.
    Text,
    /// A list of objects: `name`, `about` and `parameters` (`name`, `type`, `required`, `default`, `about`).
    Json,
}

/// Runs the subcommand.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::List(args) => list(args),
        Command::Render(args) => render(args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<Exit> {
    let chosen = match &args.name {
        Some(name) => std::slice::from_ref(template::find(name)?),
        None => TEMPLATES,
    };
    let mut out = anstream::stdout().lock();
    if args.output == ListOutput::Json {
        let parameter = |one: &Parameter| {
            json!({
                "name": one.name, "type": one.kind.as_str(), "required": one.is_required,
                "default": one.default, "about": one.about,
            })
        };
        let templates = chosen.iter().map(|template| {
            let parameters: Vec<Value> = template.all_parameters().map(parameter).collect();
            json!({"name": template.name, "about": template.about, "parameters": parameters})
        });
        let templates: Vec<Value> = templates.collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&templates)?)?;
        return Ok(Exit::Clean);
    }
    for template in chosen {
        writeln!(out, "{}{}{:#}", style::HEAD, template.name, style::HEAD)?;
        writeln!(out, "  {}", template.about)?;
        for parameter in template.parameters {
            print_parameter(&mut out, parameter)?;
        }
        writeln!(out)?;
    }
    writeln!(out, "{}every template{:#}", style::HEAD, style::HEAD)?;
    for parameter in COMMON {
        print_parameter(&mut out, parameter)?;
    }
    Ok(Exit::Clean)
}

fn print_parameter(out: &mut impl Write, parameter: &Parameter) -> anyhow::Result<()> {
    let default = match (parameter.is_required, parameter.default) {
        (true, _) => "required".to_owned(),
        (false, None) => "optional".to_owned(),
        (false, Some("")) => "default: empty".to_owned(),
        (false, Some(default)) => format!("default: {default}"),
    };
    writeln!(
        out,
        "    {}  {}{} ({default}){:#}\n        {}",
        parameter.name,
        style::DIM,
        parameter.kind.as_str(),
        style::DIM,
        parameter.about
    )?;
    Ok(())
}

fn render(args: &RenderArgs) -> anyhow::Result<Exit> {
    let mut given = BTreeMap::new();
    for (key, value) in &args.set {
        if given.insert(key.clone(), value.clone()).is_some() {
            bail!("--set {key}: given twice");
        }
    }
    let policies = template::find(&args.name)?.render(&given)?;
    let Some(folder) = &args.folder else {
        let mut out = std::io::stdout().lock();
        for policy in &policies {
            write!(out, "---\n{}", yaml::manifest(policy, 0))?;
        }
        return Ok(Exit::Clean);
    };
    let mut files: Vec<(String, String)> = policies
        .iter()
        .map(|policy| (outputs::file_name(policy), yaml::manifest(policy, 0)))
        .collect();
    if args.kustomize {
        files.push(kustomization(&files));
    }
    outputs::write(folder, &files, args.force)?;
    told(folder, files.len())?;
    Ok(Exit::Clean)
}

/// The component that has all files as its resources.
fn kustomization(files: &[(String, String)]) -> (String, String) {
    let resources: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let component = json!({
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": resources,
    });
    (
        "kustomization.yaml".to_owned(),
        yaml::manifest(&component, 0),
    )
}

fn told(folder: &Path, files: usize) -> anyhow::Result<()> {
    writeln!(
        anstream::stderr().lock(),
        "{} written to {}",
        counted(files as u64, "file"),
        folder.display()
    )?;
    Ok(())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}
