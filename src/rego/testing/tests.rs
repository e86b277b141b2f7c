use super::*;

#[test]
fn the_built_in_policies_pass_their_tests() {
    let results =
        run(&Source::BuiltIn, &Trial::None, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let failed: Vec<String> = results
        .iter()
        .filter(|result| !result.passed())
        .map(|result| {
            format!(
                "{}:{}: {}\n    {}",
                result.file,
                result.line,
                result.name,
                result.failures.join("\n    ")
            )
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(results.len() > 50, "{} tests", results.len());
}
