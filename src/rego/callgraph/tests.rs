use regorus::Engine;

use super::*;

fn problems(modules: &[&str]) -> Vec<String> {
    let mut engine = Engine::new();
    for (index, text) in modules.iter().enumerate() {
        engine
            .add_policy(format!("{index}.rego"), (*text).to_owned())
            .expect("the policy parses");
    }
    CallGraph::of(engine.get_modules())
        .problems()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn refused(modules: &[&str], words: &str) {
    let problems = problems(modules);
    assert!(
        problems.iter().any(|problem| problem.contains(words)),
        "{words:?} is not in {problems:?}"
    );
}

fn accepted(modules: &[&str]) {
    assert_eq!(problems(modules), Vec::<String>::new());
}

#[test]
fn a_function_that_calls_itself_is_refused_with_its_place() {
    assert_eq!(
        problems(&["package p\nf(x) := y if {\n\ty := f(x)\n}\n"]),
        ["0.rego:3:7: `data.p.f` depends on itself; recursion is not allowed in Rego"]
    );
}

#[test]
fn functions_that_call_each_other_are_refused_with_the_circle() {
    refused(
        &["package p\nf(x) := g(x)\ng(x) := h(x)\nh(x) := f(x)\ndeny contains f(1)"],
        "`data.p.f` -> `data.p.g` -> `data.p.h` -> `data.p.f`",
    );
}

#[test]
fn recursion_across_packages_is_refused() {
    refused(
        &[
            "package p\nimport data.q\nf(x) := q.g(x)",
            "package q\nimport data.p as other\ng(x) := other.f(x)",
        ],
        "depends on itself",
    );
    refused(
        &[
            "package p\nf(x) := data.q.g(x)",
            "package q\ng(x) := data.p.f(x)",
        ],
        "depends on itself",
    );
}

#[test]
fn rules_that_need_each_other_are_refused() {
    refused(&["package p\na if b\nb if not a"], "depends on itself");
    refused(
        &["package p\na contains x if { some x in b }\nb contains x if { some x in a }"],
        "depends on itself",
    );
    refused(
        &["package p\ndefault a := false\na if data.p.b\nb if a"],
        "depends on itself",
    );
}

#[test]
fn recursion_inside_comprehensions_and_every_is_refused() {
    refused(
        &["package p\nf(x) := [y | some z in x; y := f(z)]"],
        "depends on itself",
    );
    refused(
        &["package p\nf(x) := {z: f(z) | some z in x}"],
        "depends on itself",
    );
    refused(
        &["package p\nf(x) if { every z in x { f(z) } }"],
        "depends on itself",
    );
    refused(
        &["package p\na := {x | x := input.y[_]; a[x]}"],
        "depends on itself",
    );
}

#[test]
fn recursion_in_heads_defaults_and_else_is_refused() {
    refused(
        &["package p\na[b] := 1 if b\nb := a.x"],
        "depends on itself",
    );
    refused(
        &["package p\nf(x) := 1 if { x > 1 } else := f(x - 1)"],
        "depends on itself",
    );
    refused(
        &["package p\na := 1 if { input.x } else := c if { not input.y }\nc := a"],
        "depends on itself",
    );
}

#[test]
fn recursion_through_with_is_refused() {
    refused(
        &["package p\nf(x) := g(x)\ng(x) := x\nh(x) := f(x)\na if f(1) with data.p.g as h"],
        "depends on itself",
    );
    refused(
        &["package p\nf(x) := count(x)\na if f([1]) with count as f"],
        "depends on itself",
    );
}

#[test]
fn a_reference_that_is_not_known_counts_as_all_that_it_could_mean() {
    refused(&["package p\na := data[input.x]"], "depends on itself");
    refused(
        &[
            "package p.q\na := data.p[input.x].b",
            "package p.r\nb := data.p.q.a",
        ],
        "depends on itself",
    );
    refused(
        &["package p\na contains x if { some name; x := data.p[name] }"],
        "depends on itself",
    );
    refused(&["package p\na := data"], "depends on itself");
}

#[test]
fn variables_may_have_the_names_of_rules() {
    accepted(&["package p\nlabels := x if { some labels in input.y; x := labels.z }"]);
    accepted(&["package p\nf(f) := f.x"]);
    accepted(&["package p\na := [a | a := input.x[_]]"]);
    accepted(&["package p\nc contains v if { some c, v in input.x; c > 1 }"]);
    accepted(&["package p\ne if { every e in input.x { e > 1 } }"]);
}

#[test]
fn rules_that_only_look_alike_are_accepted() {
    accepted(&["package p\na if data.q.a", "package q\na if input.a"]);
    accepted(&["package p\na := data.q[input.x]", "package q\nb := 1"]);
    accepted(&["package p\na := input.a.a\nb := input.data.p.b"]);
    accepted(&[
        "package p\na if { not b }\nb if input.x\ntest_a if a with data.p.b as true with input.x as 1",
    ]);
}

#[test]
fn a_name_after_its_comprehension_is_a_rule_again() {
    refused(
        &["package p\na := count(x) + a if { x := [a | a := input.x[_]] }"],
        "depends on itself",
    );
}

#[test]
fn a_call_of_something_that_does_not_exist_is_told_with_a_hint() {
    assert_eq!(
        problems(&["package p\ndeny contains \"x\" if startwith(input.x, \"y\")"]),
        ["0.rego:2:22: there is no function or builtin `startwith`; did you mean `startswith`?"]
    );
    refused(
        &["package p\na := frobnicate(1)"],
        "there is no function or builtin `frobnicate`",
    );
    refused(
        &["package p\nf(x) := x\na := data.q.f(1)"],
        "there is no function or builtin `data.q.f`",
    );
}

#[test]
fn builtins_that_depend_on_more_than_their_arguments_are_refused_with_what_to_do() {
    refused(
        &["package p\na := http.send({})"],
        "`http.send` may not be called: a policy decides from its input alone",
    );
    refused(
        &["package p\na := opa.runtime()"],
        "`opa.runtime` may not be called",
    );
    refused(
        &["package p\na := rand.intn(\"x\", 3)"],
        "the same request must always get the same answer",
    );
    refused(
        &["package p\na if count([1]) with count as rand.intn"],
        "`rand.intn` may not be called",
    );
}

#[test]
fn a_wrong_number_of_arguments_is_told() {
    refused(
        &["package p\na := count(1, 2, 3)"],
        "`count` takes 1 arguments, not 3",
    );
    refused(
        &["package p\nf(x) := x\na := f()"],
        "`f` takes 1 arguments, not 0",
    );
    accepted(&["package p\na := x if count([1], x)"]);
    accepted(&["package p\na := sprintf(\"%s\", [\"x\"])\nb if print(1, 2, 3)"]);
}

#[test]
fn a_chain_of_calls_longer_than_a_stack_is_refused() {
    let chain = |length: usize| {
        let mut text = String::from("package p\nf0(x) := x\n");
        for index in 1..length {
            let _ = writeln!(text, "f{index}(x) := f{}(x)", index - 1);
        }
        text
    };
    accepted(&[&chain(100)]);
    refused(&[&chain(3_000)], "chain of calls");
}

#[test]
fn a_package_needs_the_files_that_it_calls_into() {
    let mut engine = Engine::new();
    for (file, text) in [
        (
            "a.rego",
            "package a\nimport data.lib\ndeny contains \"x\" if lib.f(1)",
        ),
        ("lib.rego", "package lib\nf(x) if data.deep.g(x)"),
        ("deep.rego", "package deep\ng(x) if x > 0"),
        ("b.rego", "package b\ndeny contains \"y\""),
    ] {
        engine.add_policy(file.to_owned(), text.to_owned()).unwrap();
    }
    let graph = CallGraph::of(engine.get_modules());
    let files = |package: &str| {
        graph
            .files_of(&[package.to_owned()])
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(files("a"), ["a.rego", "deep.rego", "lib.rego"]);
    assert_eq!(files("b"), ["b.rego"]);
    assert_eq!(
        graph.rule(&["a".to_owned(), "deny".to_owned()]),
        Some(IsFunction::No)
    );
    assert_eq!(
        graph.rule(&["lib".to_owned(), "f".to_owned()]),
        Some(IsFunction::Yes)
    );
    assert_eq!(graph.rule(&["a".to_owned(), "warn".to_owned()]), None);
}
