//! Names as types of their own, so that a namespace is never passed where a policy is wanted.

use std::fmt;

use serde::Serialize;

/// Declares a name: an immutable text that is cheap to clone and share.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(std::sync::Arc::from(name))
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(std::sync::Arc::from(name))
            }
        }

        // Equality, order and hash are those of the text, so that maps can be asked with a `&str`.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

pub(crate) use name;

name!(
    /// The name of a namespace.
    NamespaceName
);
name!(
    /// The name of an object within its kind and namespace: a pod, a deployment, a service.
    ObjectName
);
name!(
    /// The name of a network policy within its namespace.
    PolicyName
);
name!(
    /// The name of a node.
    NodeName
);
name!(
    /// The name of a container port, as an RFC 6335 service name.
    PortName
);

/// One network policy of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PolicyRef {
    /// The namespace that the policy is in.
    pub namespace: NamespaceName,
    /// Its name there.
    pub name: PolicyName,
    /// What it is a policy by.
    #[serde(rename = "kind", skip_serializing_if = "PolicyKind::is_real")]
    pub kind: PolicyKind,
}

/// By which object a policy is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum PolicyKind {
    /// A NetworkPolicy.
    #[default]
    NetworkPolicy,
    /// A StagedNetworkPolicy that is in force on some of its pods.
    Canary,
    /// A StagedNetworkPolicy, asked what it would do.
    StagedNetworkPolicy,
}

/// One policy of the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ClusterPolicyRef {
    /// Its name, which policies of other kinds may have as well.
    pub name: PolicyName,
    /// Of which kind it is.
    pub kind: ClusterPolicyKind,
}

/// The kinds of policies of the whole cluster: one, and the two that it has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ClusterPolicyKind {
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`, always of the Admin tier.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`, always of the Baseline tier; a cluster has one at most.
    BaselineAdminNetworkPolicy,
}

impl ClusterPolicyRef {
    /// The policy of a kind that has a name.
    pub fn new(kind: ClusterPolicyKind, name: impl Into<PolicyName>) -> Self {
        Self {
            name: name.into(),
            kind,
        }
    }

    /// Its name, after its kind where a name alone means another one.
    pub fn short(&self) -> String {
        if self.kind.is_replaced() {
            self.to_string()
        } else {
            self.name.to_string()
        }
    }
}

impl ClusterPolicyKind {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
    ];

    /// The `kind` of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
        }
    }

    /// The `apiVersion` that it is read of.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
            Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy => {
                "policy.networking.k8s.io/v1alpha1"
            }
        }
    }

    /// Whether it is one of those that ClusterNetworkPolicy has replaced.
    pub fn is_replaced(self) -> bool {
        match self {
            Self::ClusterNetworkPolicy => false,
            Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy => true,
        }
    }

    /// Whether its policies have a priority; where there is one at most, it needs none.
    pub fn has_priority(self) -> bool {
        match self {
            Self::ClusterNetworkPolicy | Self::AdminNetworkPolicy => true,
            Self::BaselineAdminNetworkPolicy => false,
        }
    }
}

impl fmt::Display for ClusterPolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for ClusterPolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl PolicyRef {
    /// A NetworkPolicy.
    pub fn new(namespace: impl Into<NamespaceName>, name: impl Into<PolicyName>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            kind: PolicyKind::NetworkPolicy,
        }
    }

    /// A StagedNetworkPolicy.
    pub fn staged(namespace: impl Into<NamespaceName>, name: impl Into<PolicyName>) -> Self {
        Self {
            kind: PolicyKind::StagedNetworkPolicy,
            ..Self::new(namespace, name)
        }
    }
}

impl PolicyKind {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
    fn is_real(&self) -> bool {
        *self == Self::NetworkPolicy
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace, name, ..
        } = self;
        match self.kind {
            PolicyKind::NetworkPolicy => write!(f, "{namespace}/{name}"),
            PolicyKind::Canary => write!(f, "StagedNetworkPolicy {namespace}/{name} (canary)"),
            PolicyKind::StagedNetworkPolicy => {
                write!(f, "StagedNetworkPolicy {namespace}/{name}")
            }
        }
    }
}

/// Why a text is no DNS label (RFC 1123): the form of a namespace's name.
pub(crate) fn dns_label_problem(name: &str) -> Option<&'static str> {
    let form = "must be a DNS label: at most 63 lower-case letters, digits and '-', with a letter or digit first and last";
    (name.len() > 63 || !is_dns_label(name)).then_some(form)
}

/// Why a text is no DNS subdomain (RFC 1123): the form of most objects' names.
pub(crate) fn dns_subdomain_problem(name: &str) -> Option<&'static str> {
    let form = "must be a DNS subdomain: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit \
                at the start and end of each part";
    (name.len() > 253 || !name.split('.').all(is_dns_label)).then_some(form)
}

/// Why a text is no port name (RFC 6335 section 5.1, lower case as the Kubernetes API wants it).
pub(crate) fn port_name_problem(name: &str) -> Option<&'static str> {
    let is_valid = name.len() <= 15
        && is_dns_label(name)
        && !name.contains("--")
        && name.bytes().any(|byte| byte.is_ascii_lowercase());
    let form = "must be a port name: at most 15 lower-case letters, digits and single '-', with at least one letter, and \
                a letter or digit first and last";
    (!is_valid).then_some(form)
}

fn is_dns_label(name: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().next_back()];
    name.bytes()
        .all(|byte| is_alphanumeric(byte) || byte == b'-')
        && ends.into_iter().all(|end| end.is_some_and(is_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_prints_as_its_text_and_is_found_by_it() {
        let names = std::collections::BTreeSet::from([NamespaceName::from("shop")]);
        assert!(names.contains("shop"));
        assert_eq!(format!("{:>6}", NamespaceName::from("shop")), "  shop");
        let policy = PolicyRef::new("shop", "default-deny");
        assert_eq!(policy.to_string(), "shop/default-deny");
        let canary = PolicyRef {
            kind: PolicyKind::Canary,
            ..policy
        };
        assert_eq!(
            canary.to_string(),
            "StagedNetworkPolicy shop/default-deny (canary)"
        );
    }

    #[test]
    fn namespace_names_are_dns_labels() {
        for good in ["a", "kube-system", "1st", &"a".repeat(63)] {
            assert_eq!(dns_label_problem(good), None, "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(dns_label_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn object_names_are_dns_subdomains() {
        for good in ["a", "web-1.example", &"a".repeat(253)] {
            assert_eq!(dns_subdomain_problem(good), None, "{good}");
        }
        for bad in ["", ".", "a..b", "a.-b", "Web", "a/b", &"a".repeat(254)] {
            assert!(dns_subdomain_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn port_names_have_a_letter_and_at_most_fifteen_characters() {
        for good in ["http", "dns-tcp", "1a", "abcdefghijklmno"] {
            assert_eq!(port_name_problem(good), None, "{good}");
        }
        for bad in [
            "",
            "80",
            "a--b",
            "-a",
            "a-",
            "HTTP",
            "a.b",
            "abcdefghijklmnop",
        ] {
            assert!(port_name_problem(bad).is_some(), "{bad}");
        }
    }
}
