//! `ringfence template`: what it lists, what it makes, and that `check` has nothing to say of it.

use insta::assert_snapshot;

use super::{repository, ringfence};

#[test]
fn the_list_has_parameters_and_defaults() {
    assert_snapshot!(
        "template-list",
        ringfence(repository(), &["template", "list"], "")
    );
    let json = ringfence(
        repository(),
        &["template", "list", "allow-dns", "--output", "json"],
        "",
    );
    assert_snapshot!("template-list-json", json);
}

#[test]
fn policies_are_made_as_yaml_that_passes_check() {
    let arguments = [
        "template",
        "render",
        "default-deny-allowlist",
        "--set",
        "namespace=shop",
        "--set",
        "from=frontend",
        "--set",
        "ports=8080,udp/53",
        "--set",
        "owner=team-shop",
        "--set",
        "review-by=2099-01-31",
        "--set",
        "purpose=- {not: structure} # but 'text'",
    ];
    let seen = ringfence(repository(), &arguments, "");
    assert_snapshot!("template-render", seen);
    let yaml = seen.strip_prefix("exit: 0\n--- stdout\n").unwrap();
    let checked = ringfence(repository(), &["check", "-"], yaml);
    assert!(checked.starts_with("exit: 0"), "{checked}");
    assert!(!checked.contains("RF"), "{checked}");
}

#[test]
fn what_every_template_makes_passes_check() {
    let list = ringfence(repository(), &["template", "list", "--output", "json"], "");
    let list = list.strip_prefix("exit: 0\n--- stdout\n").unwrap();
    let list: serde_json::Value = serde_json::from_str(list).unwrap();
    for template in list.as_array().unwrap() {
        let mut arguments = vec!["template".to_owned(), "render".to_owned()];
        arguments.push(template["name"].as_str().unwrap().to_owned());
        for parameter in template["parameters"].as_array().unwrap() {
            if parameter["required"] != true {
                continue;
            }
            let name = parameter["name"].as_str().unwrap();
            let value = match parameter["type"].as_str().unwrap() {
                "labels" => "app.kubernetes.io/name=x",
                "ports" => "8080",
                "name=CIDR list" => "partners=203.0.113.0/24",
                _ if name == "prod" => "shop",
                _ => "a",
            };
            arguments.push("--set".to_owned());
            arguments.push(format!("{name}={value}"));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let made = ringfence(repository(), &arguments, "");
        let yaml = made.strip_prefix("exit: 0\n--- stdout\n").expect(&made);
        let checked = ringfence(repository(), &["check", "-"], yaml);
        assert!(checked.starts_with("exit: 0"), "{arguments:?}: {checked}");
        assert!(!checked.contains("RF"), "{arguments:?}: {checked}");
    }
}

#[test]
fn a_component_is_a_folder_that_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "template",
        "render",
        "default-deny",
        "--set",
        "namespace=shop",
        "--set",
        "owner=team-shop",
        "--kustomize",
        "-o",
        "component",
    ];
    assert_snapshot!(
        "template-component",
        ringfence(folder.path(), &arguments, "")
    );
    let read =
        |name: &str| std::fs::read_to_string(folder.path().join("component").join(name)).unwrap();
    assert_snapshot!("template-kustomization", read("kustomization.yaml"));
    assert!(read("shop.default-deny.yaml").contains("kind: NetworkPolicy"));
    assert_snapshot!("template-refused", ringfence(folder.path(), &arguments, ""));
    let forced = ringfence(folder.path(), &[&arguments[..], &["--force"]].concat(), "");
    assert!(forced.starts_with("exit: 0"), "{forced}");
    let checked = ringfence(folder.path(), &["check", "component"], "");
    assert!(checked.starts_with("exit: 0"), "{checked}");
}

#[test]
fn wrong_parameters_are_told_by_name() {
    let wrong = |arguments: &[&str]| {
        ringfence(
            repository(),
            &[&["template", "render"], arguments].concat(),
            "",
        )
    };
    assert_snapshot!(
        "template-missing",
        wrong(&["frontend-to-backend", "--set", "form=app=web"])
    );
    assert_snapshot!("template-unknown", wrong(&["default-deni"]));
    assert_snapshot!(
        "template-wrong",
        wrong(&[
            "egress-to-networks",
            "--set",
            "namespace=Shop",
            "--set",
            "owner=x",
            "--set",
            "networks=a=10.0.0.0/33",
            "--set",
            "ports=http",
        ])
    );
}
