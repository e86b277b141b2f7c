//! Sets of numbers as sorted spans, both ends of a span in it: ports and addresses.

/// Numbers that follow each other.
pub(crate) trait Step: Copy + Ord {
    /// The next number; none after the last one.
    fn next(self) -> Option<Self>;
    /// The number before; none before the first one.
    fn before(self) -> Option<Self>;
}

/// The first and the last number of a span.
pub(crate) type Span<T> = (T, T);

impl Step for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn before(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Step for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn before(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// The same numbers in sorted spans that neither overlap nor touch.
pub(crate) fn joined<T: Step>(mut spans: Vec<Span<T>>) -> Vec<Span<T>> {
    spans.sort_unstable();
    let mut joined: Vec<Span<T>> = Vec::with_capacity(spans.len());
    for (first, last) in spans {
        match joined.last_mut() {
            Some(before) if before.1.next().is_none_or(|next| first <= next) => {
                before.1 = before.1.max(last);
            }
            Some(_) | None => joined.push((first, last)),
        }
    }
    joined
}

/// The numbers that are in both; each of the two is sorted and without overlap, and so is what comes out.
pub(crate) fn common<T: Step>(left: &[Span<T>], right: &[Span<T>]) -> Vec<Span<T>> {
    let mut common = Vec::new();
    let (mut lefts, mut rights) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (lefts.peek(), rights.peek()) {
        let (first, last) = (a.0.max(b.0), a.1.min(b.1));
        if first <= last {
            common.push((first, last));
        }
        if a.1 <= b.1 {
            lefts.next();
        } else {
            rights.next();
        }
    }
    common
}

/// The numbers of the left that are not in the right; each is sorted and without overlap, and so is what comes out.
pub(crate) fn less<T: Step>(left: &[Span<T>], right: &[Span<T>]) -> Vec<Span<T>> {
    let mut rest = Vec::new();
    for (first, last) in left {
        let mut start = Some(*first);
        let near = right.partition_point(|(_, end)| end < first);
        for (from, to) in right.iter().skip(near) {
            let Some(at) = start.filter(|at| at <= last && from <= last) else {
                break;
            };
            if let Some(before) = from.before().filter(|before| at <= *before) {
                rest.push((at, before));
            }
            start = to.next();
        }
        rest.extend(start.filter(|at| at <= last).map(|at| (at, *last)));
    }
    rest
}

/// Whether a number is in sorted spans.
pub(crate) fn contains<T: Step>(spans: &[Span<T>], number: T) -> bool {
    let at = spans.partition_point(|(_, last)| *last < number);
    spans.get(at).is_some_and(|(first, _)| *first <= number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_touch_or_overlap_become_one() {
        let spans: Vec<Span<u32>> = vec![(5, 9), (1, 2), (3, 3), (7, 12), (20, u32::MAX), (30, 40)];
        assert_eq!(joined(spans), [(1, 3), (5, 12), (20, u32::MAX)]);
    }

    #[test]
    fn what_is_common_is_in_both() {
        let (left, right): ([Span<u32>; 2], [Span<u32>; 3]) =
            ([(1, 10), (20, 30)], [(5, 6), (8, 25), (30, 99)]);
        assert_eq!(common(&left, &right), [(5, 6), (8, 10), (20, 25), (30, 30)]);
        assert!(contains(&left, 20) && contains(&left, 30) && !contains(&left, 15));
        assert!(!contains(&left, 31));
    }

    #[test]
    fn what_is_left_is_in_the_first_only() {
        let left: [Span<u32>; 3] = [(0, 10), (20, 30), (40, u32::MAX)];
        let right = [(0, 0), (5, 6), (8, 25), (30, 99), (u32::MAX, u32::MAX)];
        assert_eq!(
            less(&left, &right),
            [(1, 4), (7, 7), (26, 29), (100, u32::MAX - 1)]
        );
        assert_eq!(less(&left, &[]), left);
        assert_eq!(less(&left, &[(0, u32::MAX)]), []);
        for number in [0, 1, 4, 5, 7, 8, 15, 25, 26, 30, 35, 40, 99, 100, u32::MAX] {
            assert_eq!(
                contains(&less(&left, &right), number),
                contains(&left, number) && !contains(&right, number),
                "{number}"
            );
        }
    }
}
