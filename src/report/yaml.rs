//! A manifest as a person would write it, for those that are proposed.

use serde::Serialize;

/// A manifest as YAML, each line indented by this many spaces and ended.
pub fn manifest(manifest: &impl Serialize, indent: usize) -> String {
    let text = serde_saphyr::to_string(manifest)
        // JSON is YAML as well, only less pleasant.
        .or_else(|_| serde_json::to_string(manifest))
        .unwrap_or_default();
    let lines = text.trim_end().lines();
    lines.fold(String::new(), |mut block, line| {
        if !line.is_empty() {
            block.extend(std::iter::repeat_n(' ', indent));
            block.push_str(line);
        }
        block.push('\n');
        block
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_that_yaml_takes_for_something_else_are_quoted() {
        let labels = json!({"yes": "on", "port": "8080", "time": "12:30", "plain": "a-b.c/d"});
        assert_eq!(
            manifest(&labels, 2),
            "  plain: a-b.c/d\n  port: \"8080\"\n  time: \"12:30\"\n  \"yes\": \"on\"\n"
        );
    }
}
