//! Policies that mean harm, or do it by mistake. Each is kept from it when it is loaded, tried out or evaluated, and
//! whatever it does the process goes on, in time, and the other policies are asked.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ringfence::rego::Trial;

use crate::support::{Setting, create, engine, failed, found, pod, policy, refused, trial};

/// Longer than any answer may take, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(5);

/// A policy that does harm once it is asked about the object named `boom`, and never in a trial.
fn on_boom(body: &str, helpers: &str) -> String {
    policy(
        "hostile",
        &format!(
            "deny contains \"found\" if {{\n\tinput.request.name == \"boom\"\n\t{body}\n}}\n\n{helpers}\n"
        ),
    )
}

/// A policy without fault, which is asked beside the others.
fn honest() -> String {
    policy(
        "honest",
        "deny contains \"seen\" if input.request.name == \"boom\"",
    )
}

/// Asks about the object named `boom` and has the reason why the hostile policy failed.
fn boom(texts: &[&str]) -> String {
    let honest = honest();
    let texts: Vec<&str> = texts.iter().copied().chain([honest.as_str()]).collect();
    let engine = engine(&texts);
    let setting = Setting::new();
    let start = Instant::now();
    let answers = setting.ask(&engine, &create(&pod("boom")));
    assert!(start.elapsed() < PATIENCE, "it took {:?}", start.elapsed());
    assert_eq!(
        found(&answers),
        ["honest : seen"],
        "the other policy is asked all the same"
    );
    failed(&answers).join("\n")
}

/// The same for what fails in no time: asks again where a busy machine made it miss its time all the same.
fn outcome(texts: &[&str]) -> String {
    let mut reasons = boom(texts);
    for _ in 0..20 {
        if !reasons.contains("longer than 100 ms") && !reasons.contains("did not stop") {
            break;
        }
        reasons = boom(texts);
    }
    reasons
}

/// Rules `name0` to `nameN`, each made of the one before.
fn chain(name: &str, first: &str, levels: usize, next: impl Fn(&str) -> String) -> String {
    let mut text = format!("{name}0 := {first}\n");
    for level in 1..=levels {
        let _ = writeln!(
            text,
            "{name}{level} := {}",
            next(&format!("{name}{}", level - 1))
        );
    }
    text
}

#[test]
fn an_endless_loop_is_cut() {
    let text = on_boom(
        "some i in numbers.range(1, 60000)\n\tsome j in numbers.range(1, 60000)\n\tsome k in numbers.range(1, 60000)\n\ti * j == 0 - k",
        "",
    );
    assert_eq!(boom(&[&text]), "hostile: it took longer than 100 ms");
}

#[test]
fn a_comprehension_that_collects_without_end_is_cut() {
    let text = on_boom(
        "count([[i, j] | some i in numbers.range(1, 60000); some j in numbers.range(1, 60000)]) > 0",
        "",
    );
    assert_eq!(boom(&[&text]), "hostile: it took longer than 100 ms");
}

#[test]
fn calls_with_huge_answers_are_refused() {
    let strings = chain("s", "\"aaaaaaaaaaaaaaaa\"", 40, |before| {
        format!("concat(\"\", [{before}, {before}])")
    });
    let replaced = chain("s", "\"aa\"", 40, |before| {
        format!("replace({before}, \"a\", \"aa\")")
    });
    let quoted = chain("s", "\"\\\"\"", 60, |before| {
        format!("json.marshal({before})")
    });
    let arrays = chain("a", "[1, 2]", 40, |before| {
        format!("array.concat({before}, {before})")
    });
    for (body, helpers, reason) in [
        (
            "count(numbers.range(1, 20000000)) > 0",
            "",
            "the range has more than 65536 numbers",
        ),
        (
            "count(numbers.range_step(0, 9000000000000000000, 2)) > 0",
            "",
            "the range has more than",
        ),
        (
            "count(net.cidr_expand(\"10.0.0.0/8\")) > 0",
            "",
            "10.0.0.0/8 has more than 65536 addresses",
        ),
        (
            "count(net.cidr_expand(\"::/0\")) > 0",
            "",
            "has more than 65536 addresses",
        ),
        (
            "sprintf(\"%4000000000d\", [1]) != \"\"",
            "",
            "a width is larger than 256",
        ),
        (
            "count(split(sprintf(\"%256s\", [s10]), \"\")) > 0\n\tsprintf(\"%s%s\", [s40, s40]) != \"\"",
            strings.as_str(),
            "the text would be longer than",
        ),
        (
            "s40 != \"\"",
            replaced.as_str(),
            "the text would be longer than",
        ),
        ("s60 != \"\"", quoted.as_str(), "an argument is too large"),
        ("count(a40) > 0", arrays.as_str(), "the array would have"),
        (
            "bits.lsh(1, 4000000000) > 0",
            "",
            "shifts by more than 1024 bits",
        ),
        (
            "to_number(\"1e400000000\") > 0",
            "",
            "an exponent is larger than 320",
        ),
        (
            "units.parse(\"1e400000000\") > 0",
            "",
            "an exponent is larger than 320",
        ),
        (
            "regex.match(\"((a{100}){100}){100}\", \"a\")",
            "",
            "regex exceeded size limit",
        ),
        (
            "regex.replace(s8, \"a*\", s8) != \"\"",
            strings.as_str(),
            "the text would be longer than",
        ),
    ] {
        let reasons = outcome(&[&on_boom(body, helpers)]);
        assert!(
            reasons.starts_with("hostile: ") && reasons.contains(reason),
            "{body}: {reasons}"
        );
    }
}

#[test]
fn values_that_share_their_parts_are_never_written_out() {
    // Forty levels of twice the one before: small in memory, a terabyte in text.
    let twice = chain("a", "[1]", 40, |before| format!("[{before}, {before}]"));
    let objects = chain("o", "{}", 40, |before| {
        format!("{{\"x\": {before}, \"y\": {before}}}")
    });
    for (body, helpers) in [
        ("json.marshal(a40) != \"\"", &twice),
        ("sprintf(\"%v\", [a40]) != \"\"", &twice),
        ("count([path | walk(a40, [path, _])]) > 0", &twice),
        ("object.union(o40, o40) != {}", &objects),
        ("object.union_n([o40, o40]) != {}", &objects),
        ("json.filter(o40, [\"x\"]) != {}", &objects),
        ("object.remove(o40, [\"x\"]) != {}", &objects),
    ] {
        let reasons = outcome(&[&on_boom(body, helpers)]);
        assert!(reasons.contains("too large"), "{body}: {reasons}");
    }
    let text = policy(
        "hostile",
        &format!(
            "deny contains {{\"msg\": \"x\", \"field\": a40}} if input.request.name == \"boom\"\n{twice}"
        ),
    );
    assert_eq!(outcome(&[&text]), "hostile: `deny` the value is too large");
    // Nobody would read what it prints, so it prints nothing.
    let text = policy(
        "hostile",
        &format!(
            "deny contains 7 if {{\n\tinput.request.name == \"boom\"\n\tprint(a40)\n}}\n{twice}"
        ),
    );
    assert_eq!(
        outcome(&[&text]),
        "hostile: `deny` holds 7; expects a text or an object with `msg`"
    );
}

#[test]
fn numbers_that_grow_are_cut_between_two_steps() {
    let squares = chain("n", "1234567890123456789", 60, |before| {
        format!("{before} * {before}")
    });
    let reasons = boom(&[&on_boom("n60 > 0", &squares)]);
    assert!(
        reasons.contains("longer than 100 ms") || reasons.contains("did not stop"),
        "{reasons}"
    );
}

#[test]
fn a_single_step_without_end_is_given_up_and_its_policy_suspended() {
    // Two values that are alike all the way down: comparing them takes 2^60 steps, and nothing can stop it.
    let one = chain("a", "[1]", 60, |before| format!("[{before}, {before}]"));
    let other = chain("b", "[1]", 60, |before| format!("[{before}, {before}]"));
    let text = on_boom("a60 == b60", &format!("{one}{other}"));
    let honest = honest();
    let engine = engine(&[&text, &honest]);
    let setting = Setting::new();

    let start = Instant::now();
    let answers = setting.ask(&engine, &create(&pod("boom")));
    assert!(start.elapsed() < PATIENCE, "it took {:?}", start.elapsed());
    assert_eq!(
        failed(&answers),
        ["hostile: it did not stop when its time was over"]
    );
    assert_eq!(found(&answers), ["honest : seen"]);

    let start = Instant::now();
    let answers = setting.ask(&engine, &create(&pod("boom")));
    assert!(start.elapsed() < PATIENCE, "it took {:?}", start.elapsed());
    assert_eq!(
        failed(&answers),
        ["hostile: it is suspended: an earlier evaluation has not come to an end"]
    );
    assert_eq!(found(&answers), ["honest : seen"]);
}

#[test]
fn a_policy_that_runs_out_of_time_again_and_again_is_suspended() {
    let text = on_boom(
        "count([1 | some i in numbers.range(1, 60000); some j in numbers.range(1, 60000)]) > 0",
        "",
    );
    let engine = engine(&[&text]);
    let setting = Setting::new();
    for _ in 0..3 {
        assert_eq!(
            failed(&setting.ask(&engine, &create(&pod("boom")))),
            ["hostile: it took longer than 100 ms"]
        );
    }
    let start = Instant::now();
    let answers = setting.ask(&engine, &create(&pod("boom")));
    assert!(
        failed(&answers)[0].contains("it ran out of time 3 times in a row"),
        "{:?}",
        failed(&answers)
    );
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "a suspended policy costs no time"
    );
}

#[test]
fn panics_of_the_evaluator_are_failures_of_the_policy() {
    // Digits of another script make the evaluator's own `sprintf` panic; ours looks first, others are caught.
    let reasons = outcome(&[&on_boom("sprintf(\"%٣d\", [1]) != \"\"", "")]);
    assert!(
        reasons.is_empty() || reasons.starts_with("hostile: "),
        "{reasons}"
    );
}

#[test]
fn deep_values_do_not_overflow_the_stack() {
    let deep = chain("d", "[]", 1_900, |before| format!("[{before}]"));
    let reasons = outcome(&[&on_boom("count(d1900) == 0", &deep)]);
    assert_eq!(reasons, "", "the policy finds nothing");
    let deep = chain("d", "[]", 3_000, |before| format!("[{before}]"));
    assert!(
        refused(&[&on_boom("count(d3000) == 0", &deep)], &Trial::None)
            .contains("chain of calls with more than")
    );
    // Without rules of their own, levels cost no chain of calls.
    let mut body = String::from("d0 := []\n");
    for level in 1..=1_500 {
        let _ = writeln!(body, "\td{level} := [d{}]", level - 1);
    }
    let reasons = outcome(&[&on_boom(&format!("{body}\tcount(d1500) == 0"), "")]);
    assert_eq!(reasons, "", "the policy finds nothing");
}

#[test]
fn deep_answers_are_let_go_of_without_overflow() {
    // Deeper by far than the stack of the thread that asks, and told as the answer itself.
    let deep = chain("d", "[]", 1_900, |before| {
        format!("{}{before}{}", "[".repeat(6), "]".repeat(6))
    });
    let text = policy(
        "hostile",
        &format!(
            "deny contains {{\"msg\": \"x\", \"field\": d1900}} if input.request.name == \"boom\"\n{deep}"
        ),
    );
    let asks = std::thread::Builder::new()
        .stack_size(512 << 10)
        .spawn(move || outcome(&[&text]))
        .unwrap();
    assert_eq!(
        asks.join().unwrap(),
        "hostile: `deny` the value is nested too deeply"
    );
}

#[test]
fn deep_calls_do_not_overflow_the_stack() {
    let mut functions = String::from("f0(x) := x\n");
    for level in 1..900 {
        let _ = writeln!(
            functions,
            "f{level}(x) := y if {{\n\ty := f{}(x)\n}}",
            level - 1
        );
    }
    assert_eq!(
        outcome(&[&on_boom("f899(1) == 2", &functions)]),
        "",
        "the policy finds nothing"
    );
}

#[test]
fn loops_inside_loops_do_not_overflow_the_stack() {
    let mut body = String::new();
    for level in 0..200 {
        let _ = writeln!(body, "\tsome x{level} in [1]");
    }
    assert_eq!(
        outcome(&[&on_boom(&format!("{body}\tx199 == 2"), "")]),
        "",
        "the policy finds nothing"
    );
}

#[test]
fn deeply_nested_sources_are_refused() {
    for (open, close, reason) in [
        ("[", "]", "nested more than 12 deep"),
        ("{\"a\":", "}", "nested more than 12 deep"),
        ("count([", "])", "nested more than 12 deep"),
        ("[x | x := ", "]", "nested more than 12 deep"),
        ("(", ")", ""),
        ("-", "", ""),
    ] {
        let nested = format!("a := {}1{}", open.repeat(20_000), close.repeat(20_000));
        let text = policy("hostile", &format!("{nested}\ndeny contains \"x\" if a"));
        let reasons = refused(&[&text], &trial());
        assert!(reasons.contains(reason), "{open}: {reasons}");
    }
    let long = format!("a := input{}", ".x".repeat(100_000));
    assert!(
        !refused(
            &[&policy(
                "hostile",
                &format!("{long}\ndeny contains \"x\" if a")
            )],
            &trial()
        )
        .is_empty()
    );
}

#[test]
fn a_crash_in_the_trial_is_an_error_of_the_set() {
    // Numbers are read when the policy is: one with a billion digits is more memory than the trial has.
    let reasons = refused(
        &[&policy("hostile", "deny contains \"x\" if 1e999999999 > 0")],
        &trial(),
    );
    assert!(!reasons.is_empty(), "{reasons}");
}

#[test]
fn what_runs_out_of_time_in_the_trial_is_not_put_in_force() {
    let text = policy(
        "hostile",
        "deny contains \"x\" if {\n\tsome i in numbers.range(1, 60000)\n\tsome j in numbers.range(1, 60000)\n\ti == 0 - j\n}",
    );
    let reasons = refused(&[&text], &trial());
    assert!(
        reasons.contains(
            "policy `hostile`, tried with the creation of a Deployment: it took longer than 250 ms"
        ),
        "{reasons}"
    );
}

#[test]
fn a_step_without_end_in_the_trial_ends_with_the_trial() {
    let one = chain("a", "[1]", 60, |before| format!("[{before}, {before}]"));
    let other = chain("b", "[1]", 60, |before| format!("[{before}, {before}]"));
    let text = policy(
        "hostile",
        &format!("deny contains \"x\" if a60 == b60\n{one}{other}"),
    );
    let start = Instant::now();
    let reasons = refused(&[&text], &trial());
    assert!(
        start.elapsed() < Duration::from_mins(1),
        "it took {:?}",
        start.elapsed()
    );
    assert!(
        reasons.contains("evaluating the policy `hostile` with the creation of a Deployment"),
        "{reasons}"
    );
}

#[test]
fn recursion_is_refused_before_it_is_evaluated() {
    for rules in [
        "deny contains f(1)\nf(x) := f(x)",
        "deny contains \"x\" if f(1)\nf(x) if g(x)\ng(x) if f(x)",
        "deny contains \"x\" if deny[_]",
        "deny contains x if { some name; x := data[name] }",
        "deny contains \"x\" if g(1) with h as f\nf(x) := g(x)\ng(x) := h(x)\nh(x) := x",
    ] {
        for trial in [Trial::None, trial()] {
            let reasons = refused(&[&policy("hostile", rules)], &trial);
            assert!(
                reasons.contains("recursion is not allowed"),
                "{rules}: {reasons}"
            );
        }
    }
}

#[test]
fn too_many_answers_are_a_failure_with_the_first_of_them() {
    let text = policy(
        "hostile",
        "deny contains sprintf(\"%d\", [i]) if { some i in numbers.range(1, 2000); input.request.name == \"boom\" }",
    );
    let answers = Setting::new().ask(&engine(&[&text]), &create(&pod("boom")));
    assert_eq!(answers.violations.len(), 500);
    assert_eq!(
        failed(&answers),
        ["hostile: `deny` has 2000 answers, more than 500"]
    );
}

#[test]
fn a_time_that_is_over_leaves_every_policy_unasked() {
    let honest = honest();
    let engine = engine(&[&honest]);
    let mut setting = Setting::new();
    setting.deadline = Some(Instant::now());
    let answers = setting.ask(&engine, &create(&pod("boom")));
    assert_eq!(failed(&answers), ["honest: there was no time left for it"]);
}
