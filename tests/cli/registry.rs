//! `ringfence registry`: the register in its formats, and the evidence.

use std::process::Command;

use insta::assert_snapshot;

use super::{folder_with, repository, ringfence};

const AT: [&str; 2] = ["--at", "2027-06-01T12:00:00Z"];

/// Everything that wants to be markup, in every place where people write.
const HOSTILE: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
  namespace: shop
  annotations:
    ringfence.dev/owner: "<script>alert('x')</script> | & \" team"
    ringfence.dev/purpose: "two\nlines | and a pipe"
    ringfence.dev/review-by: "2027-05-31"
    ringfence.dev/controls: PCI DSS 1.3.1, HIPAA 164.312(e)(1)
spec:
  podSelector: {}
  ingress:
    - from:
        - ipBlock:
            cidr: 192.0.2.0/24
      ports:
        - port: 443
"#;

#[test]
fn the_register_is_told_in_each_format() {
    let shop = [
        "registry",
        "deploy/examples/shop",
        "deploy/examples/exemption.yaml",
    ];
    assert_snapshot!(
        "registry-markdown",
        ringfence(repository(), &[&shop[..], &AT].concat(), "")
    );
    let folder = folder_with("web.yaml", HOSTILE);
    for form in ["markdown", "json", "html"] {
        let arguments = [&["registry", ".", "--output", form][..], &AT].concat();
        assert_snapshot!(
            format!("registry-hostile-{form}"),
            ringfence(folder.path(), &arguments, "")
        );
    }
    assert_snapshot!(
        "registry-help",
        ringfence(repository(), &["registry", "--help"], "")
    );
}

#[test]
fn evidence_is_dated_and_not_written_over() {
    let folder = folder_with("web.yaml", HOSTILE);
    let arguments = [&["registry", "web.yaml", "--evidence", "audit"][..], &AT].concat();
    let told = ringfence(folder.path(), &arguments, "");
    let into = folder.path().join("audit/ringfence-evidence-2027-06-01");
    let sums = Command::new("sha256sum")
        .arg(into.join("SHA256SUMS"))
        .output();
    let sums = String::from_utf8(sums.expect("sha256sum, of coreutils").stdout).unwrap();
    assert_snapshot!("registry-evidence", told.replace(&sums[..64], "DIGEST"));
    let read = |name: &str| std::fs::read_to_string(into.join(name)).unwrap();
    // What `check` finds is in its own tests, and a busy machine may add to it that a policy ran out of time.
    let mut about: serde_json::Value = serde_json::from_str(&read("evidence.json")).unwrap();
    let findings = about.as_object_mut().unwrap().remove("findings").unwrap();
    assert_eq!(findings["files"], 1);
    insta::assert_json_snapshot!("registry-evidence-about", about);
    let findings: serde_json::Value = serde_json::from_str(&read("findings.json")).unwrap();
    let ids: Vec<&str> = findings["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["id"].as_str().unwrap())
        .collect();
    assert!(ids.contains(&"RF504"), "{ids:?}");
    for name in ["registry.html", "registry.md", "registry.json"] {
        assert!(read(name).contains("2027-05-31"), "{name}");
    }
    let policy = "policies/NetworkPolicy.shop.web.yaml";
    assert_eq!(read(policy), HOSTILE.trim());
    let sums = read("SHA256SUMS");
    let line = sums.lines().find(|line| line.ends_with(policy)).unwrap();
    let digest = line.split(' ').next().unwrap();
    let register: serde_json::Value = serde_json::from_str(&read("registry.json")).unwrap();
    assert_eq!(
        register["policies"][0]["digest"],
        format!("sha256:{digest}")
    );
    let is_whole = || {
        let check = Command::new("sha256sum")
            .args(["--check", "--quiet", "SHA256SUMS"])
            .current_dir(&into)
            .output();
        check.expect("sha256sum, of coreutils").status.success()
    };
    assert!(is_whole());
    std::fs::write(into.join(policy), HOSTILE.replace("443", "80")).unwrap();
    assert!(!is_whole());
    assert_snapshot!(
        "registry-evidence-again",
        ringfence(folder.path(), &arguments, "")
    );
}

#[test]
fn a_register_of_broken_manifests_is_refused() {
    let folder = folder_with("web.yaml", &HOSTILE.replace("192.0.2.0/24", "192.0.2.0/33"));
    assert_snapshot!(
        "registry-broken",
        ringfence(folder.path(), &["registry", "."], "")
    );
}
