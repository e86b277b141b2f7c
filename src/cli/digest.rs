//! Digests of what is handed out, so that whoever has noted one can tell whether it was altered.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

/// The SHA-256 digest of a text, in hexadecimal, as `sha256sum` prints it.
pub(super) fn sha256(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in digest(&SHA256, text.as_bytes()).as_ref() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// What `sha256sum --check` reads: a line for each file, by name.
pub(super) fn sums(files: &[(String, String)]) -> String {
    let mut lines: Vec<(&String, String)> = files
        .iter()
        .map(|(name, text)| (name, sha256(text)))
        .collect();
    lines.sort();
    lines
        .iter()
        .fold(String::new(), |mut sums, (name, digest)| {
            let _ = writeln!(sums, "{digest}  {name}");
            sums
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        // FIPS 180-4, the example of one block.
        assert_eq!(
            sha256("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let files = [
            ("b".to_owned(), String::new()),
            ("a".to_owned(), "abc".to_owned()),
        ];
        let sums = sums(&files);
        let lines: Vec<&str> = sums.lines().collect();
        assert!(lines[0].starts_with("ba7816bf") && lines[0].ends_with("ad  a"));
        assert!(lines[1].ends_with("  b"));
    }
}
