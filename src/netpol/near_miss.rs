//! Words that are almost another one: a label that is a typo of a demanded one, or of one that a policy selects by.

/// The candidate that `word` is probably a typo of; none where it is one of them, or like none of them.
///
/// Words that differ in nothing but digits (`web-1`, `web-2`) are no typos of each other.
pub fn near_miss<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let lower = word.to_lowercase();
    let mut nearest: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate == word {
            return None;
        }
        // Lengths that are further apart than the distance that counts need no look.
        if candidate.len().abs_diff(word.len()) > MOST || differ_in_digits(candidate, word) {
            continue;
        }
        let distance = strsim::osa_distance(&lower, &candidate.to_lowercase());
        if distance <= tolerance(word.len().max(candidate.len()))
            && nearest.is_none_or(|best| (distance, candidate) < best)
        {
            nearest = Some((distance, candidate));
        }
    }
    nearest.map(|(_, candidate)| candidate)
}

/// The largest distance that ever counts as a typo.
const MOST: usize = 2;

/// How many letters may be wrong, by the length of the longer word: none where every other short word would be alike.
fn tolerance(length: usize) -> usize {
    match length {
        0..=2 => 0,
        3..=7 => 1,
        _ => MOST,
    }
}

/// Whether words differ in nothing but their digits.
fn differ_in_digits(one: &str, other: &str) -> bool {
    let digit = |letter: &char| letter.is_ascii_digit();
    one.contains(|letter| digit(&letter))
        && other.contains(|letter| digit(&letter))
        && one
            .chars()
            .filter(|letter| !digit(letter))
            .eq(other.chars().filter(|letter| !digit(letter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_too_few_too_many_wrong_or_swapped_is_a_typo() {
        for typo in ["ap", "appp", "aop", "pap", "App"] {
            assert_eq!(
                near_miss(typo, ["app", "environment"]),
                Some("app"),
                "{typo}"
            );
        }
        assert_eq!(
            near_miss("enviroment", ["app", "environment"]),
            Some("environment")
        );
        assert_eq!(
            near_miss("app.kubernetes.io/nmae", ["app.kubernetes.io/name"]),
            Some("app.kubernetes.io/name")
        );
    }

    #[test]
    fn a_word_that_is_one_of_them_is_no_typo() {
        assert_eq!(near_miss("app", ["ape", "app"]), None);
    }

    #[test]
    fn short_words_and_far_words_are_not_alike() {
        assert_eq!(near_miss("a", ["b"]), None);
        assert_eq!(near_miss("ui", ["ux"]), None);
        assert_eq!(near_miss("tier", ["team"]), None);
        assert_eq!(near_miss("frontend", ["backend"]), None);
    }

    #[test]
    fn numbered_names_are_meant() {
        assert_eq!(near_miss("web-1", ["web-2"]), None);
        assert_eq!(near_miss("shard10", ["shard1"]), None);
    }

    #[test]
    fn the_nearest_wins_and_ties_go_by_the_alphabet() {
        assert_eq!(
            near_miss("frontent", ["frontenz", "frontend", "frontends"]),
            Some("frontend")
        );
    }
}
