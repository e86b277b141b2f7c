//! Folders, files and streams to objects.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ringfence::k8s::manifests::{Input, Loaded, load};
use ringfence::k8s::yaml::Limits;
use ringfence::netpol::FieldPath;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    folder
}

fn load_path(path: impl AsRef<Path>) -> Loaded {
    load(
        vec![Input::Path(path.as_ref().to_owned())],
        &Limits::default(),
    )
}

fn load_text(text: &str) -> Loaded {
    let input = Input::read("<stdin>", text.as_bytes(), &Limits::default()).expect("bytes");
    load(vec![input], &Limits::default())
}

/// All that was loaded, one thing a line, with the folder's own path left out.
fn told(loaded: &Loaded, folder: &Path) -> String {
    let mut told = String::new();
    let folder = folder.to_string_lossy();
    let short = |text: &str| {
        text.replace(&format!("{folder}/"), "")
            .replace(&*folder, ".")
    };
    for manifest in &loaded.manifests {
        let text = |pointer: &str| {
            manifest
                .value
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or("-")
        };
        let source = &manifest.source;
        let item = source
            .item
            .map_or_else(String::new, |item| format!(" item {item}"));
        let place = manifest.place(&FieldPath::of(["kind"]));
        writeln!(
            told,
            "{} document {}{item} line {}: {} {} {}",
            short(&source.file),
            source.document,
            place.line,
            text("/apiVersion"),
            text("/kind"),
            text("/metadata/name")
        )
        .expect("a string");
    }
    for problem in &loaded.problems {
        let fatal = if problem.fatal { "fatal" } else { "remark" };
        write!(
            told,
            "{}:{}:{} {} {fatal}: {}",
            short(&problem.file),
            problem.line,
            problem.column,
            problem.id,
            short(&problem.message)
        )
        .expect("a string");
        let help = problem
            .help
            .as_deref()
            .map_or_else(String::new, |help| format!(" [{}]", short(help)));
        writeln!(told, "{help}").expect("a string");
    }
    writeln!(
        told,
        "{} files, {} passed over",
        loaded.files, loaded.passed_over
    )
    .expect("a string");
    told
}

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n")
}

#[test]
fn a_folder_is_read_in_the_order_of_its_names_without_what_is_hidden_or_foreign() {
    let two = format!(
        "# Two.\n---\n{}---\n# nothing\n---\n{}",
        pod("one"),
        pod("two")
    );
    let folder = folder(&[
        ("b/z.yml", &pod("z")),
        (
            "b/a.JSON",
            r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "json"}}"#,
        ),
        ("a.yaml", &two),
        (".hidden/x.yaml", &pod("hidden")),
        (".x.yaml", &pod("hidden")),
        (".gitignore", "*.yaml\n"),
        ("values.yaml", "replicas: 1\n"),
        ("list.yaml", "- 1\n---\ntext\n"),
        ("README.md", "---\n"),
        ("empty.yaml", ""),
    ]);
    insta::assert_snapshot!(told(&load_path(folder.path()), folder.path()), @"
    a.yaml document 1 line 4: v1 Pod one
    a.yaml document 2 line 11: v1 Pod two
    b/a.JSON document 1 line 1: v1 Pod json
    b/z.yml document 1 line 2: v1 Pod z
    6 files, 3 passed over
    ");
}

#[test]
fn a_list_is_opened_and_its_items_keep_their_places() {
    let list = "\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: a}
- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: nested}}]}
- just text
- kind: Pod
  metadata: {name: b}
---
apiVersion: apps/v1
kind: DeploymentList
items:
- metadata: {name: c}
---
apiVersion: example.com/v1
kind: AllowList
metadata: {name: mine}
items: [1]
---
apiVersion: v1
kind: List
";
    insta::assert_snapshot!(told(&load_text(list), Path::new("/nowhere")), @"
    <stdin> document 1 item 0 line 5: v1 Pod a
    <stdin> document 1 item 0 line 7: v1 Pod nested
    <stdin> document 2 item 0 line 15: apps/v1 Deployment c
    <stdin> document 3 line 18: example.com/v1 AllowList mine
    <stdin>:8:3 RF002 remark: not a Kubernetes object: it has no `apiVersion` and `kind`
    <stdin>:9:3 RF002 remark: not a Kubernetes object: `apiVersion` is missing
    1 files, 0 passed over
    ");
}

#[test]
fn what_is_named_has_to_hold_objects() {
    let folder = folder(&[
        ("values.yaml", "replicas: 1\n"),
        (
            "kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n",
        ),
    ]);
    let inputs = ["values.yaml", "kustomization.yaml", "missing.yaml"];
    let inputs = inputs.map(|name| Input::Path(folder.path().join(name)));
    let loaded = load(inputs.to_vec(), &Limits::default());
    insta::assert_snapshot!(told(&loaded, folder.path()), @"
    missing.yaml:1:1 RF001 fatal: cannot be read: there is no such file or folder
    values.yaml:1:1 RF002 remark: not a Kubernetes object: it has no `apiVersion` and `kind`
    kustomization.yaml:1:1 RF002 remark: not a Kubernetes object: it is what `kustomize build` makes objects with
    2 files, 0 passed over
    ");
}

#[test]
fn what_is_meant_as_an_object_and_is_none_is_told() {
    let text = "kind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nmetadata: {name: b}\n---\napiVersion: 1\nkind: Pod\n---\napiVersion: v1\nkind: ''\n---\nkind: x\n";
    insta::assert_snapshot!(told(&load_text(text), Path::new("/nowhere")), @"
    <stdin>:1:1 RF002 remark: not a Kubernetes object: `apiVersion` is missing
    <stdin>:4:1 RF002 remark: not a Kubernetes object: `kind` is missing
    <stdin>:7:13 RF002 remark: not a Kubernetes object: `apiVersion` must be a text
    <stdin>:11:7 RF002 remark: not a Kubernetes object: `kind` must be a text
    <stdin>:13:1 RF002 remark: not a Kubernetes object: it has no `apiVersion` and `kind`
    1 files, 0 passed over
    ");
}

#[test]
fn broken_yaml_is_fatal_where_it_may_have_been_an_object() {
    let folder = folder(&[
        ("ci.yaml", "jobs: [\n"),
        (
            "pod.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: [\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: good}\n",
        ),
    ]);
    insta::assert_snapshot!(told(&load_path(folder.path()), folder.path()), @"
    pod.yaml document 1 line 6: v1 Pod good
    ci.yaml:1:7 RF001 remark: `[` is never closed
    pod.yaml:3:11 RF001 fatal: `[` is never closed
    2 files, 0 passed over
    ");
}

#[test]
fn templates_of_a_chart_are_named_with_the_command_that_renders_them() {
    let folder = folder(&[
        (
            "my chart/Chart.yaml",
            "apiVersion: v2\nname: shop\nversion: 1.0.0\n",
        ),
        ("my chart/values.yaml", "replicas: 1\n"),
        (
            "my chart/templates/a.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}\n",
        ),
        (
            "my chart/templates/sub/b.yaml",
            "{{- if .x }}\nkind: Pod\n{{- end }}\n",
        ),
        ("my chart/templates/plain.yaml", &pod("plain")),
        (
            "my chart/crds/crd.yaml",
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n",
        ),
        (
            "templates/c.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .x }}\n",
        ),
    ]);
    insta::assert_snapshot!(told(&load_path(folder.path()), folder.path()), @"
    my chart/crds/crd.yaml document 1 line 2: apiextensions.k8s.io/v1 CustomResourceDefinition -
    my chart/templates/plain.yaml document 1 line 2: v1 Pod plain
    templates/c.yaml:4:10 RF001 fatal: a key must be a single value [it looks like a template; check what is made of it: `helm template CHART | ringfence check -`]
    my chart/Chart.yaml:1:1 RF001 remark: 2 templates of this Helm chart cannot be checked before Helm has rendered them [check what is made of them: `helm template 'my chart' | ringfence check -`]
    7 files, 2 passed over
    ");
    let named = load_path(folder.path().join("my chart/templates/a.yaml"));
    assert!(named.manifests.is_empty() && named.problems[0].message.starts_with("one template"));
}

#[test]
fn patches_of_a_kustomization_are_no_objects_and_what_it_changes_is_told() {
    let patch = "apiVersion: v1\nkind: Pod\nmetadata: {name: base}\nspec: {hostNetwork: null}\n";
    let folder = folder(&[
        ("base/kustomization.yaml", "resources: [pod.yaml]\n"),
        ("base/pod.yaml", &pod("base")),
        (
            "prod/kustomization.yml",
            "resources: [../base]\nnamePrefix: prod-\npatches:\n- path: patch.yaml\n- patch: '- op: remove'\n\
             patchesStrategicMerge: [other.yaml, '{a: 1}']\nconfigMapGenerator:\n- name: c\n  files: [x=file.yaml]\n",
        ),
        ("prod/patch.yaml", patch),
        ("prod/other.yaml", patch),
        ("prod/file.yaml", patch),
        ("broken/Kustomization", "resources: [\n"),
    ]);
    insta::assert_snapshot!(told(&load_path(folder.path()), folder.path()), @"
    base/pod.yaml document 1 line 2: v1 Pod base
    broken/Kustomization:1:1 RF001 remark: this kustomization cannot be read; its patches are taken for objects
    prod/kustomization.yml:1:1 RF001 remark: the files here are checked as they are; what this kustomization changes is not seen: configMapGenerator, namePrefix, patches, patchesStrategicMerge [check what is made of them: `kustomize build prod | ringfence check -`]
    1 files, 0 passed over
    ");
}

/// A folder that is mounted from the cluster: names are links to a hidden folder that is replaced as a whole.
#[cfg(unix)]
#[test]
fn links_are_followed_and_nothing_is_read_twice() {
    use std::os::unix::fs::symlink;

    let folder = folder(&[
        ("..2026/pod.yaml", &pod("mounted")),
        ("real/a.yaml", &pod("a")),
    ]);
    let at = |name: &str| folder.path().join(name);
    symlink("..2026", at("..data")).expect("a link");
    symlink("..data/pod.yaml", at("pod.yaml")).expect("a link");
    symlink(".", at("loop")).expect("a link");
    symlink("real", at("again")).expect("a link");
    symlink("nowhere", at("dangling.yaml")).expect("a link");
    insta::assert_snapshot!(told(&load_path(folder.path()), folder.path()), @"
    again/a.yaml document 1 line 2: v1 Pod a
    pod.yaml document 1 line 2: v1 Pod mounted
    dangling.yaml:1:1 RF001 fatal: cannot be read: there is no such file or folder
    2 files, 0 passed over
    ");
    let twice = load(
        vec![Input::Path(at("real")), Input::Path(at("real/a.yaml"))],
        &Limits::default(),
    );
    assert_eq!(twice.manifests.len(), 1);
}

#[test]
fn a_large_stream_reads_as_its_documents_read_alone() {
    let documents: Vec<String> = (0..3000)
        .map(|number| pod(&format!("pod-{number}")))
        .collect();
    let loaded = load_text(&documents.join("---\n"));
    assert_eq!(loaded.manifests.len(), 3000);
    for (number, manifest) in loaded.manifests.iter().enumerate() {
        let name = FieldPath::of(["metadata", "name"]);
        assert_eq!(
            name.lookup(&manifest.value),
            Some(&Value::from(format!("pod-{number}")))
        );
        assert_eq!(manifest.source.document, number + 1);
        assert_eq!(manifest.place(&name).line, number * 5 + 4);
    }
}

#[test]
fn a_key_that_stands_twice_is_a_remark_with_both_lines() {
    let text = format!("{}spec:\n  a: 1\n  a: 2\n", pod("x"));
    insta::assert_snapshot!(told(&load_text(&text), Path::new("/nowhere")), @"
    <stdin> document 1 line 2: v1 Pod x
    <stdin>:7:3 RF004 remark: `spec.a` stands twice; the value at line 6 is lost, for the last one counts
    1 files, 0 passed over
    ");
}
