//! Random clusters in which policies are on trial.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::clusters;

/// A random cluster, some of whose policies are on trial: instead of being in force, or beside what another one says under the
/// same name.
pub(crate) fn any_cluster() -> impl Strategy<Value = Vec<Value>> {
    let trial = (0_u8..5, any::<Index>(), 1_u8..100);
    (clusters::any_cluster(), proptest::collection::vec(trial, 8)).prop_map(
        |(mut values, trials)| {
            let policies: Vec<usize> = values
                .iter()
                .enumerate()
                .filter(|(_, value)| value["kind"] == "NetworkPolicy")
                .map(|(place, _)| place)
                .collect();
            for (place, (what, other, percent)) in policies.iter().zip(trials) {
                let mut staged = values[*place].clone();
                staged["apiVersion"] = json!("ringfence.dev/v1alpha1");
                staged["kind"] = json!("StagedNetworkPolicy");
                if what == 4 {
                    // Tried in the place of the one of its name, which stays.
                    let other = policies[other.index(policies.len())];
                    staged["spec"] = values[other]["spec"].clone();
                }
                if !staged["spec"].is_object() {
                    staged["spec"] = json!({});
                }
                match (what, percent % 3) {
                    (0, _) => continue,
                    (2, _) | (4, 0) => {
                        staged["spec"]["stage"] = json!("Canary");
                        staged["spec"]["canary"] = json!({"percent": percent});
                    }
                    (3, _) | (4, 1) => {
                        staged["spec"]["stage"] = json!("Canary");
                        let chosen = staged["spec"]["podSelector"].clone();
                        let chosen = if chosen.is_null() { json!({}) } else { chosen };
                        staged["spec"]["canary"] = json!({"podSelector": chosen});
                    }
                    _ => {}
                }
                if what == 4 {
                    values.push(staged);
                } else {
                    values[*place] = staged;
                }
            }
            values
        },
    )
}
