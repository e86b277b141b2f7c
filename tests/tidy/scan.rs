//! Just enough of Rust's grammar to judge sources: tokens with lines, comments apart, test code cut out, paths whole.

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or a keyword.
    Word(String),
    /// One character of punctuation; `::` is one token.
    Mark(&'static str),
    /// A string, character, number or lifetime: its text does not matter here.
    Literal,
}

/// A token and the line it begins on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: Kind,
    /// Where it is.
    pub(crate) line: usize,
}

/// A comment without its slashes, and the line it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// What it says.
    pub(crate) text: String,
    /// Where it is.
    pub(crate) line: usize,
}

/// A path such as `std::fs::read`, groups of `use` taken apart, and the line of its last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Its words.
    pub(crate) words: Vec<String>,
    /// Where it is.
    pub(crate) line: usize,
}

/// The parts of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// The tokens that are not test code.
    pub(crate) tokens: Vec<Token>,
    /// All comments, those of test code too.
    pub(crate) comments: Vec<Comment>,
    /// How many lines are not test code.
    pub(crate) lines: usize,
    /// The modules that are test code in a file of their own.
    pub(crate) test_modules: Vec<String>,
}

/// Takes a source apart.
pub(crate) fn scan(text: &str) -> Source {
    let (tokens, comments) = tokens(text);
    let total = text.lines().count();
    let tests = test_items(&tokens);
    let taken: usize = tests
        .iter()
        .map(|(from, to)| tokens[*to].line - tokens[*from].line + 1)
        .sum();
    let test_modules = tests
        .iter()
        .filter_map(|(from, to)| declared(&tokens[*from..=*to]))
        .collect();
    let inside = |at: usize| tests.iter().any(|(from, to)| (*from..=*to).contains(&at));
    let tokens = tokens
        .iter()
        .enumerate()
        .filter(|(at, _)| !inside(*at))
        .map(|(_, token)| token.clone())
        .collect();
    Source {
        tokens,
        comments,
        lines: total - taken,
        test_modules,
    }
}

/// The name of a module in a file of its own, of an item `mod name;`.
fn declared(item: &[Token]) -> Option<String> {
    match item {
        [
            ..,
            Token {
                kind: Kind::Word(word),
                ..
            },
            Token {
                kind: Kind::Word(name),
                ..
            },
            Token {
                kind: Kind::Mark(";"),
                ..
            },
        ] if word == "mod" => Some(name.clone()),
        _ => None,
    }
}

/// The paths of two words and more, and the single names that a `use` brings in.
pub(crate) fn paths(tokens: &[Token]) -> Vec<Path> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at].kind {
            Kind::Word(word) if word == "use" => at = tree(tokens, at + 1, &[], &mut paths),
            Kind::Word(word) => {
                let mut words = vec![word.clone()];
                let mut line = tokens[at].line;
                while is(tokens, at + 1, "::") {
                    let Some(Token {
                        kind: Kind::Word(next),
                        line: next_line,
                    }) = tokens.get(at + 2)
                    else {
                        break;
                    };
                    words.push(next.clone());
                    line = *next_line;
                    at += 2;
                }
                if words.len() > 1 {
                    paths.push(Path { words, line });
                }
                at += 1;
            }
            Kind::Mark(_) | Kind::Literal => at += 1,
        }
    }
    paths
}

/// The names that are called as macros, `println` of `println!(…)`.
pub(crate) fn macros(tokens: &[Token]) -> Vec<(String, usize)> {
    let opens = |at| ["(", "[", "{"].iter().any(|mark| is(tokens, at, mark));
    let name = |at: usize| match &tokens[at].kind {
        Kind::Word(word) if is(tokens, at + 1, "!") && opens(at + 2) => {
            Some((word.clone(), tokens[at].line))
        }
        Kind::Word(_) | Kind::Mark(_) | Kind::Literal => None,
    };
    (0..tokens.len()).filter_map(name).collect()
}

/// The names that are called as methods, `unwrap` of `.unwrap()`.
pub(crate) fn methods(tokens: &[Token]) -> Vec<(String, usize)> {
    let name = |at: usize| match &tokens[at].kind {
        Kind::Word(word) if at > 0 && is(tokens, at - 1, ".") && is(tokens, at + 1, "(") => {
            Some((word.clone(), tokens[at].line))
        }
        Kind::Word(_) | Kind::Mark(_) | Kind::Literal => None,
    };
    (0..tokens.len()).filter_map(name).collect()
}

fn is(tokens: &[Token], at: usize, mark: &str) -> bool {
    matches!(tokens.get(at), Some(Token { kind: Kind::Mark(found), .. }) if *found == mark)
}

/// Reads the tree of a `use` from `at` on, below a prefix. Gives the place behind it.
fn tree(tokens: &[Token], mut at: usize, prefix: &[String], paths: &mut Vec<Path>) -> usize {
    let mut words = prefix.to_vec();
    let mut line = tokens.get(at).map_or(0, |token| token.line);
    let mut whole = true;
    while let Some(token) = tokens.get(at) {
        match &token.kind {
            Kind::Word(word) if word == "as" => at += 1,
            Kind::Word(word) => {
                words.push(word.clone());
                line = token.line;
            }
            Kind::Mark("::") => {}
            Kind::Mark("*") => words.push("*".to_owned()),
            Kind::Mark("{") => {
                whole = false;
                at += 1;
                while at < tokens.len() && !is(tokens, at, "}") {
                    at = tree(tokens, at, &words, paths);
                    if is(tokens, at, ",") {
                        at += 1;
                    }
                }
            }
            Kind::Mark(_) | Kind::Literal => break,
        }
        at += 1;
    }
    if whole && words.len() > prefix.len() {
        paths.push(Path { words, line });
    }
    at
}

/// The items under `#[cfg(test)]` and `#[test]`: first and last token of each.
fn test_items(tokens: &[Token]) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some(end) = test_attribute(tokens, at) else {
            at += 1;
            continue;
        };
        // Further attributes, then the item up to its `;` or the end of its block.
        let mut depth = 0_usize;
        let mut last = end - 1;
        for (index, token) in tokens.iter().enumerate().skip(end) {
            last = index;
            match token.kind {
                Kind::Mark("{" | "(" | "[") => depth += 1,
                Kind::Mark("}" | ")" | "]") => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && token.kind == Kind::Mark("}") {
                        break;
                    }
                }
                Kind::Mark(";") if depth == 0 => break,
                Kind::Mark(_) | Kind::Word(_) | Kind::Literal => {}
            }
        }
        items.push((at, last));
        at = last + 1;
    }
    items
}

/// The place behind an attribute that marks test code.
fn test_attribute(tokens: &[Token], at: usize) -> Option<usize> {
    if !(is(tokens, at, "#") && is(tokens, at + 1, "[")) {
        return None;
    }
    let word = |at: usize, text: &str| matches!(tokens.get(at), Some(Token { kind: Kind::Word(word), .. }) if word == text);
    if word(at + 2, "test") && is(tokens, at + 3, "]") {
        return Some(at + 4);
    }
    let cfg = word(at + 2, "cfg")
        && is(tokens, at + 3, "(")
        && word(at + 4, "test")
        && is(tokens, at + 5, ")");
    (cfg && is(tokens, at + 6, "]")).then_some(at + 7)
}

fn tokens(text: &str) -> (Vec<Token>, Vec<Comment>) {
    let chars: Vec<char> = text.chars().collect();
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let (mut tokens, mut comments) = (Vec::new(), Vec::new());
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let (start, first) = (at, line);
        let here = chars[at];
        if here == '/' && peek(at + 1) == '/' {
            at = end_of(&chars, at, |rest| rest[0] == '\n');
            let text: String = chars[start..at].iter().collect();
            comments.push(Comment {
                text: text.trim_start_matches(['/', '!']).trim().to_owned(),
                line: first,
            });
            continue;
        }
        let kind = if here == '/' && peek(at + 1) == '*' {
            at =
                (end_of(&chars, at + 2, |rest| rest.starts_with(&['*', '/'])) + 2).min(chars.len());
            comments.push(Comment {
                text: chars[start..at].iter().collect(),
                line: first,
            });
            None
        } else if let Some(end) = string(&chars, at) {
            at = end;
            Some(Kind::Literal)
        } else if here.is_alphabetic() || here == '_' {
            at = end_of(&chars, at, |rest| {
                !(rest[0].is_alphanumeric() || rest[0] == '_')
            });
            Some(Kind::Word(chars[start..at].iter().collect()))
        } else if here.is_ascii_digit() {
            at = end_of(&chars, at, |rest| {
                !(rest[0].is_alphanumeric() || rest[0] == '_')
            });
            Some(Kind::Literal)
        } else if here == ':' && peek(at + 1) == ':' {
            at += 2;
            Some(Kind::Mark("::"))
        } else {
            at += 1;
            mark(here).map(Kind::Mark)
        };
        line += chars[start..at].iter().filter(|&&c| c == '\n').count();
        tokens.extend(kind.map(|kind| Token { kind, line: first }));
    }
    (tokens, comments)
}

fn end_of(chars: &[char], from: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len())
        .find(|&at| stop(&chars[at..]))
        .unwrap_or(chars.len())
}

/// The place behind a string, character or lifetime that begins here.
fn string(chars: &[char], at: usize) -> Option<usize> {
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let prefix = chars[at..]
        .iter()
        .take_while(|c| ['b', 'c', 'r'].contains(*c))
        .count();
    let raw = prefix > 0 && peek(at + prefix - 1) == 'r';
    let hashes = if raw {
        chars[at + prefix..]
            .iter()
            .take_while(|&&c| c == '#')
            .count()
    } else {
        0
    };
    let open = at + prefix + hashes;
    if prefix <= 2 && peek(open) == '"' {
        let closes = |rest: &[char]| {
            rest[0] == '"' && rest[1..].iter().take_while(|&&c| c == '#').count() >= hashes
        };
        if raw {
            return Some(end_of(chars, open + 1, closes) + 1 + hashes);
        }
        return Some(quoted(chars, open));
    }
    if prefix <= 1 && !raw && peek(at + prefix) == '\'' {
        let quote = at + prefix;
        // 'a' and '\n' are characters, 'a without a closing quote is a lifetime.
        if peek(quote + 1) == '\\' || peek(quote + 2) == '\'' {
            return Some(quoted(chars, quote));
        }
        return Some(end_of(chars, quote + 1, |rest| {
            !(rest[0].is_alphanumeric() || rest[0] == '_')
        }));
    }
    None
}

fn quoted(chars: &[char], open: usize) -> usize {
    let mut at = open + 1;
    while at < chars.len() && chars[at] != chars[open] {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn mark(character: char) -> Option<&'static str> {
    const MARKS: [&str; 12] = ["{", "}", "(", ")", "[", "]", "!", "#", ".", ",", ";", "*"];
    if character.is_whitespace() {
        return None;
    }
    Some(
        MARKS
            .into_iter()
            .find(|mark| mark.starts_with(character))
            .unwrap_or("?"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_list(text: &str) -> Vec<String> {
        paths(&scan(text).tokens)
            .into_iter()
            .map(|path| path.words.join("::"))
            .collect()
    }

    #[test]
    fn groups_of_a_use_are_taken_apart() {
        assert_eq!(
            path_list(
                "use std::{fs, io::{self, Write as _}, collections::*};\nfn f() { std::process::exit(1) }"
            ),
            [
                "std::fs",
                "std::io::self",
                "std::io::Write",
                "std::collections::*",
                "std::process::exit"
            ]
        );
    }

    #[test]
    fn strings_characters_and_comments_are_not_code() {
        let text = "// std::fs\nlet a = \"std::fs \\\" \"; let b = r#\"std::net \" \"#; let c = '\"'; let d: &'a str; /* std::env */";
        assert_eq!(path_list(text), Vec::<String>::new());
        assert_eq!(scan(text).comments.len(), 2);
        assert!(macros(&scan("let x = \"println!(1)\";").tokens).is_empty());
    }

    #[test]
    fn test_code_is_cut_out_and_its_lines_are_not_counted() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n    #[test]\n    fn b() { x.unwrap(); }\n}\nfn c() {}\n";
        let source = scan(text);
        assert_eq!(source.lines, 2);
        assert!(methods(&source.tokens).is_empty());
        assert_eq!(
            scan("#[cfg(test)]\nmod tests;\nfn a() { b.unwrap() }")
                .tokens
                .len(),
            11
        );
        assert_eq!(
            scan("#[cfg(test)]\npub(crate) mod testing;\nmod real;").test_modules,
            ["testing"]
        );
    }

    #[test]
    fn lines_are_counted_through_strings_of_several_lines() {
        let source = scan("let a = \"one\ntwo\";\nx.unwrap();");
        assert_eq!(methods(&source.tokens), [("unwrap".to_owned(), 3)]);
    }

    #[test]
    fn macros_are_told_from_negations() {
        assert_eq!(
            macros(&scan("if !done { println!(\"x\") } a != (b); todo!()").tokens).len(),
            2
        );
    }
}
