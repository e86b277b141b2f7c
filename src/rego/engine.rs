//! The policies in force, behind the trait of `guard`: asked concurrently, each within its time, replaced as a whole.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use regorus::Value;
use tracing::trace_span;

use super::builtins;
use super::input::{self, Extent};
use super::load::{LoadError, PolicyFile, read_folder};
use super::pack::Pack;
use super::tasks::{Task, left, run};
use super::trial::Trial;
use super::user::{self, Asked, UserPolicy};
use super::value;
use crate::guard::engine::{
    Answers, Failure, Mutation, Mutations, PolicyEngine, PolicyInfo, Question, Violation,
};
use crate::guard::guardrail::Section;
use crate::guard::review::Subject;
use crate::telemetry::traces::{self, TARGET};

/// Most guardrails whose parameters are kept ready.
const MAX_PARAMETERS: usize = 64;

/// A set of policies that was checked and compiled.
pub struct PolicySet {
    pack: Option<Pack>,
    user: Vec<Arc<UserPolicy>>,
    registry: Vec<PolicyInfo>,
}

/// The policies in force.
pub struct RegoEngine {
    set: ArcSwap<PolicySet>,
    /// The parameters of guardrails, converted; compared before use, so they need no clearing.
    parameters: ArcSwap<Vec<(serde_json::Value, Value)>>,
}

// === impl PolicySet ===

impl PolicySet {
    /// The built-in policies.
    pub fn built_in() -> Result<Self, LoadError> {
        Self::with(&[], &Trial::None)
    }

    /// The built-in policies and those of some folders.
    pub fn load(folders: &[PathBuf], trial: &Trial) -> Result<Self, LoadError> {
        let mut files = Vec::new();
        for folder in folders {
            files.extend(read_folder(folder)?);
        }
        Self::with(&files, trial)
    }

    /// The built-in policies and these files.
    pub fn with(files: &[PolicyFile], trial: &Trial) -> Result<Self, LoadError> {
        Ok(Self::made_of(
            Some(Pack::load()?),
            user::load(files, trial)?,
        ))
    }

    /// These files alone, as for `policy test`.
    pub fn only(files: &[PolicyFile], trial: &Trial) -> Result<Self, LoadError> {
        Ok(Self::made_of(None, user::load(files, trial)?))
    }

    fn made_of(pack: Option<Pack>, user: Vec<UserPolicy>) -> Self {
        let policies = pack
            .iter()
            .flat_map(Pack::policies)
            .chain(user.iter().flat_map(|policy| &policy.package.policies));
        let mut registry: Vec<PolicyInfo> = policies.map(|policy| policy.info.clone()).collect();
        registry.sort_by(|one, other| one.id.cmp(&other.id));
        let mut user: Vec<Arc<UserPolicy>> = user.into_iter().map(Arc::new).collect();
        user.sort_by_key(|policy| policy.name());
        Self {
            pack,
            user,
            registry,
        }
    }

    /// What is known of each policy, in the order of the ids.
    pub fn registry(&self) -> &[PolicyInfo] {
        &self.registry
    }
}

// === impl RegoEngine ===

impl RegoEngine {
    /// An engine with a set of policies in force.
    pub fn new(set: PolicySet) -> Self {
        Self {
            set: ArcSwap::from_pointee(set),
            parameters: ArcSwap::default(),
        }
    }

    /// Puts another set in force; evaluations that are under way end with the old one.
    pub fn replace(&self, set: PolicySet) {
        self.set.store(Arc::new(set));
    }

    /// Loads the policies of some folders and puts them in force; on an error the set in force stays.
    pub fn reload(&self, folders: &[PathBuf], trial: &Trial) -> Result<(), LoadError> {
        self.replace(PolicySet::load(folders, trial)?);
        Ok(())
    }

    fn parameters(&self, parameters: &serde_json::Value) -> Value {
        let known = self.parameters.load();
        if let Some((_, ready)) = known.iter().find(|(known, _)| known == parameters) {
            return ready.clone();
        }
        let ready = value::from_json(parameters);
        let mut more = Vec::clone(&known);
        if more.len() >= MAX_PARAMETERS {
            more.clear();
        }
        more.push((parameters.clone(), ready.clone()));
        // Of two threads that find it missing one loses its entry, and makes it again next time.
        self.parameters.store(Arc::new(more));
        ready
    }

    fn pack(&self, pack: &Pack, question: &Question<'_>, answers: &mut Answers) {
        let sections = pack.sections(question);
        if sections.is_empty() {
            return;
        }
        let input = input::document(
            question,
            self.parameters(&question.guardrail.parameters),
            Extent::Pack,
        );
        for section in sections {
            let asked = match left(question.deadline) {
                Some(limit) => pack.ask(section, &input, question, limit),
                None => Err("there was no time left for it".to_owned()),
            };
            match asked {
                Ok(violations) => answers.violations.extend(violations),
                Err(reason) => {
                    let policy = serde_json::to_value(section)
                        .ok()
                        .and_then(|name| name.as_str().map(str::to_owned));
                    answers.failures.push(Failure {
                        policy: policy.unwrap_or_default(),
                        section,
                        reason,
                    });
                }
            }
        }
    }

    /// The users' policies that a question is for, and why others are left out.
    fn concerned(
        set: &PolicySet,
        question: &Question<'_>,
        asked: Asked,
    ) -> (Vec<Arc<UserPolicy>>, Vec<Failure>) {
        let (mut concerned, mut failures) = (Vec::new(), Vec::new());
        for policy in set.user.iter().filter(|policy| policy.answers(asked)) {
            let wanted = |section| match section {
                Section::Policies => true,
                section => question.guardrail.mode_of(section).is_some(),
            };
            if !excluded(policy, question)
                && policy
                    .package
                    .policies
                    .iter()
                    .any(|policy| wanted(policy.info.section))
            {
                match policy.breaker.suspended() {
                    Some(reason) => failures.push(failure(policy, reason)),
                    None => concerned.push(policy.clone()),
                }
            }
        }
        (concerned, failures)
    }

    fn user(&self, set: &PolicySet, question: &Question<'_>, answers: &mut Answers) {
        if set.user.is_empty() || question.guardrail.mode_of(Section::Policies).is_none() {
            return;
        }
        let (concerned, failures) = Self::concerned(set, question, Asked::Violations);
        answers.failures.extend(failures);
        if concerned.is_empty() {
            return;
        }
        let input = input::document(
            question,
            self.parameters(&question.guardrail.parameters),
            Extent::Whole,
        );
        let object = Arc::new(question.subject.value.clone());
        let tasks = concerned
            .into_iter()
            .map(|policy| Task {
                policy,
                input: input.clone(),
                object: object.clone(),
            })
            .collect();
        for (policy, answer) in run(tasks, UserPolicy::find, question) {
            match answer {
                Ok((found, wrong)) => {
                    let found = found.into_iter().filter(|found| wanted(found, question));
                    answers.violations.extend(found);
                    let wrong = wrong
                        .iter()
                        .map(|wrong| failure(&policy, wrong.to_string()));
                    answers.failures.extend(wrong);
                }
                Err(reason) => answers.failures.push(failure(&policy, reason)),
            }
        }
    }
}

impl PolicyEngine for RegoEngine {
    fn evaluate(&self, question: &Question<'_>) -> Answers {
        let set = self.set.load();
        let mut answers = Answers::default();
        let guardrail = question.guardrail.name.as_str();
        let span = traces::within(|| trace_span!(target: TARGET, "rego", guardrail));
        let _entered = span.enter();
        if let Some(pack) = &set.pack {
            self.pack(pack, question, &mut answers);
        }
        self.user(&set, question, &mut answers);
        answers
    }

    fn mutate(&self, question: &Question<'_>) -> Mutations {
        let set = self.set.load();
        let (concerned, failures) = Self::concerned(&set, question, Asked::Mutation);
        let mut mutations = Mutations {
            failures,
            patches: Vec::new(),
        };
        if concerned.is_empty() || question.guardrail.mode_of(Section::Policies).is_none() {
            return mutations;
        }
        let parameters = self.parameters(&question.guardrail.parameters);
        let mut current = question.subject.value.clone();
        // One after the other: each sees what those before it have changed.
        for policy in concerned {
            let subject = Subject::new(current.clone());
            let question = Question {
                subject: &subject,
                ..*question
            };
            let input = input::document(&question, parameters.clone(), Extent::Whole);
            let task = Task {
                policy,
                input,
                object: Arc::new(current.clone()),
            };
            for (policy, answer) in run(vec![task], UserPolicy::change, &question) {
                match answer {
                    Ok(Some(patch)) => {
                        // Applied before as well: it is known to apply.
                        let _ = json_patch::patch(&mut current, &patch);
                        let first = policy.package.policies.first();
                        mutations.patches.extend(first.map(|first| Mutation {
                            policy: first.info.id.clone(),
                            patch,
                        }));
                    }
                    Ok(None) => {}
                    Err(reason) => mutations.failures.push(failure(&policy, reason)),
                }
            }
        }
        mutations
    }

    fn registry(&self) -> Vec<PolicyInfo> {
        self.set.load().registry.clone()
    }

    fn looks_far(&self) -> bool {
        let set = self.set.load();
        let mut files = set.user.iter().flat_map(|policy| &policy.package.files);
        files.any(|file| builtins::FAR.iter().any(|name| file.text.contains(name)))
    }
}

/// Whether the guardrail leaves all policies of a package out.
fn excluded(policy: &UserPolicy, question: &Question<'_>) -> bool {
    let exclude = question
        .guardrail
        .spec
        .policies
        .as_ref()
        .map(|section| &section.exclude);
    exclude.is_some_and(|exclude| {
        policy
            .package
            .policies
            .iter()
            .all(|policy| exclude.contains(policy.info.id.as_str()))
    })
}

/// Whether a user's finding is asked for: its policy is not left out, and its section is there.
fn wanted(found: &Violation, question: &Question<'_>) -> bool {
    let spec = &question.guardrail.spec;
    spec.policies
        .as_ref()
        .is_none_or(|section| !section.exclude.contains(found.id.as_str()))
        && question.guardrail.mode_of(found.section).is_some()
}

fn failure(policy: &UserPolicy, reason: String) -> Failure {
    Failure {
        policy: policy.name(),
        section: Section::Policies,
        reason,
    }
}
