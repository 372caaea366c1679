//! Values of an environment are taken out of texts that people read: logs, and why a deploy failed.
//!
//! A value is found where it is written as it is, and so is each line of a value of several lines,
//! because output is cut into lines. What a function encodes first is not found. Texts are cut at
//! bounds: a line that begins with the end of a value or ends with the beginning of one is masked
//! there, too. Short values are left: `true` or `8080` is no secret, and masking it would make logs
//! unreadable.

use std::ops::Range;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::noncontiguous::NFA;
use cloudserve_protocol::call::Env;

/// Shorter values, and shorter parts of values, are not masked.
const MIN_SECRET_BYTES: usize = 8;

const MASK: &str = "***";

/// Knows the values of one environment. Made in time proportional to their bytes; a text then takes
/// time proportional to its own, however many values there are.
///
/// There is no `Debug`: the automata spell the values. The default knows none.
#[derive(Default)]
pub struct Mask(Option<Values>);

impl Mask {
    /// Of this environment.
    #[must_use]
    pub fn of(env: &Env) -> Self {
        let of_lines = env.0.values().flat_map(|value| value.lines());
        let mut values: Vec<&[u8]> = (env.0.values().map(String::as_str).chain(of_lines))
            .map(|value| value.trim().as_bytes())
            .filter(|value| value.len() >= MIN_SECRET_BYTES)
            .collect();
        values.sort_unstable();
        values.dedup();
        Self((!values.is_empty()).then(|| Values::new(&values)))
    }

    /// Replaces each value in this text by `***`. Values that overlap are replaced as one.
    pub fn apply(&self, text: &mut String) {
        self.replace(text, MIN_SECRET_BYTES);
    }

    /// The same for a text that is known to be cut: however little of a value it ends with goes.
    pub fn apply_to_cut(&self, text: &mut String) {
        self.replace(text, 1);
    }

    fn replace(&self, text: &mut String, min_tail: usize) {
        let Some(values) = &self.0 else { return };
        let spans = values.spans(text.as_bytes(), min_tail);
        if spans.is_empty() {
            return;
        }
        let mut masked = String::with_capacity(text.len());
        let mut rest = 0;
        for span in spans {
            // A value begins and ends with whole characters, and so does what was found of it.
            masked.push_str(&text[rest..span.start]);
            masked.push_str(MASK);
            rest = span.end;
        }
        masked.push_str(&text[rest..]);
        *text = masked;
    }
}

struct Values {
    forwards: Finder,
    /// The same with the bytes of each value in reverse, for texts read from the right.
    backwards: Finder,
    longest: usize,
}

impl Values {
    fn new(values: &[&[u8]]) -> Self {
        let reversed: Vec<Vec<u8>> =
            values.iter().map(|value| value.iter().rev().copied().collect()).collect();
        Self {
            forwards: Finder::new(values),
            backwards: Finder::new(&reversed),
            longest: values.iter().map(|value| value.len()).max().unwrap_or(0),
        }
    }

    /// What of this text to mask, from left to right.
    fn spans(&self, text: &[u8], min_tail: usize) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        let mut state = self.backwards.start;
        for byte in text.iter().take(self.longest).rev() {
            state = self.backwards.next(state, *byte);
        }
        let head = self.backwards.at(state).beginning;
        if head >= MIN_SECRET_BYTES {
            spans.push(0..head);
        }
        let mut state = self.forwards.start;
        for (end, byte) in (1..).zip(text) {
            state = self.forwards.next(state, *byte);
            let bytes = self.forwards.at(state).value;
            if bytes > 0 {
                cover(&mut spans, end - bytes..end);
            }
        }
        let tail = self.forwards.at(state).beginning;
        if tail >= min_tail {
            cover(&mut spans, text.len() - tail..text.len());
        }
        spans
    }
}

/// Adds a span, which takes in those that it overlaps.
fn cover(spans: &mut Vec<Range<usize>>, mut span: Range<usize>) {
    while let Some(last) = spans.pop_if(|last| last.end > span.start) {
        span = span.start.min(last.start)..span.end.max(last.end);
    }
    spans.push(span);
}

/// Follows a text byte by byte.
struct Finder {
    automaton: NFA,
    start: StateID,
    /// By state.
    reached: Vec<Reached>,
}

/// What a text ends with that has led to a state, in bytes.
#[derive(Clone, Copy, Default)]
struct Reached {
    /// The longest end that a value begins with.
    beginning: usize,
    /// The longest end that is a value.
    value: usize,
}

/// In no text, and therefore in no value.
const NO_TEXT: u8 = 0xff;

impl Finder {
    fn new<V: AsRef<[u8]>>(values: &[V]) -> Self {
        // The automaton would keep, for each of its states, all values that end there: a few that end
        // alike can make that a thousand times the size of the environment. With this byte at its end
        // none matches, and the longest one is noted here, which covers the others. Matches that do
        // not overlap would not do: they leave the rest of a value that begins within another one.
        let automaton = NFA::builder()
            .prefilter(false)
            .build(values.iter().map(|value| [value.as_ref(), &[NO_TEXT]].concat()))
            .expect("an environment is bounded far below 2^31 bytes");
        let start = automaton
            .start_state(Anchored::No)
            .expect("this automaton searches from any place of a text");
        let mut finder = Self { automaton, start, reached: Vec::new() };
        // Of each value the state after its first bytes, and after these without the first one: what
        // is shorter is known by then.
        let mut places: Vec<_> = values.iter().map(|v| (v.as_ref(), start, start)).collect();
        for depth in 1.. {
            places.retain(|(value, ..)| value.len() >= depth);
            if places.is_empty() {
                break;
            }
            for (value, state, shorter) in &mut places {
                let byte = value[depth - 1];
                *state = finder.next(*state, byte);
                if depth > 1 {
                    *shorter = finder.next(*shorter, byte);
                }
                let ends_here = if value.len() == depth { depth } else { 0 };
                let ends_within = finder.at(*shorter).value;
                let index = state.as_usize();
                if finder.reached.len() <= index {
                    finder.reached.resize(index + 1, Reached::default());
                }
                let reached = &mut finder.reached[index];
                reached.beginning = depth;
                reached.value = reached.value.max(ends_here).max(ends_within);
            }
        }
        finder
    }

    fn next(&self, state: StateID, byte: u8) -> StateID {
        self.automaton.next_state(Anchored::No, state, byte)
    }

    fn at(&self, state: StateID) -> Reached {
        self.reached.get(state.as_usize()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<V: Into<String>>(values: impl IntoIterator<Item = V>) -> Env {
        let named = (0..).zip(values).map(|(n, value): (u32, V)| (format!("V{n}"), value.into()));
        Env(named.collect())
    }

    fn masked(mask: &Mask, text: &str) -> String {
        let mut text = text.to_owned();
        mask.apply(&mut text);
        text
    }

    #[test]
    fn values_are_masked_and_short_ones_stay() {
        let mask = Mask::of(&env(["s3cret-token", " s3cret-token-longer\n", "true"]));
        for (text, expected) in [
            ("with s3cret-token and true", "with *** and true"),
            ("s3cret-token-longers3cret-token", "******"),
            ("s3cret", "s3cret"),
            ("", ""),
        ] {
            assert_eq!(masked(&mask, text), expected);
        }
        assert_eq!(masked(&Mask::of(&Env::default()), "anything at all"), "anything at all");
    }

    #[test]
    fn however_many_values_there_are_all_are_masked() {
        let values: Vec<String> =
            (0..5_000).map(|n| format!("{}-value-{n:04}", "x".repeat(n % 7))).collect();
        let mask = Mask::of(&env(values.clone()));
        for value in values {
            assert_eq!(masked(&mask, &format!("<{value}>")), "<***>", "{value}");
        }
    }

    /// No part of a value stays where values lie within, over and beside each other.
    #[test]
    fn values_that_overlap_leave_nothing() {
        for (values, text, expected) in [
            // One begins within another one.
            (&["abcdefgh", "efghijkl"][..], "<abcdefghijkl>", "<***>"),
            (&["abcdefgh", "efghijkl", "ijklmnop"], "<abcdefghijklmnop>", "<***>"),
            // With itself.
            (&["abcabcab"], "<abcabcabcab>", "<***>"),
            // One is the beginning, the end or a part of another one.
            (&["abcdefgh", "abcdefghij"], "<abcdefghij><abcdefgh>", "<***><***>"),
            (&["cdefghij", "abcdefghij"], "<abcdefghij><cdefghij>", "<***><***>"),
            (&["cdefghij", "abcdefghijkl"], "<abcdefghijkl><cdefghij>", "<***><***>"),
            // Many end in the same place.
            (&["89abcdef", "789abcdef", "6789abcdef", "56789abcdef"], "<6789abcdef>", "<***>"),
            // What is a part of one alone is no value.
            (&["abcdefgh", "defghXYZ01"], "<abcdefghX>", "<***X>"),
            // Beside each other.
            (&["abcdefgh", "ijklmnop"], "<abcdefghijklmnop>", "<******>"),
            // Characters of several bytes.
            (&["schlüßel", "ßelüberß"], "ü<schlüßelüberß>ß", "ü<***>ß"),
        ] {
            let values = values.iter().copied();
            assert_eq!(masked(&Mask::of(&env(values.clone())), text), expected, "{text}");
            assert_eq!(masked(&Mask::of(&env(values.rev())), text), expected, "{text}");
        }
    }

    /// Compared with looking for each value at each place, over texts of two letters.
    #[test]
    fn exactly_what_is_within_a_value_is_masked() {
        let mut seed = 1_u64;
        let mut letters = |n: usize| -> String {
            let mut letter = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if seed >> 63 == 0 { 'a' } else { 'b' }
            };
            (0..n).map(|_| letter()).collect()
        };
        for n in 0..300 {
            let values: Vec<String> = (0..n % 30).map(|n| letters(8 + n % 9)).collect();
            let text = format!("<{}>", letters(200));
            let mut is_masked = vec![false; text.len()];
            for value in &values {
                for at in (0..text.len()).filter(|at| text[*at..].starts_with(value.as_str())) {
                    is_masked[at..at + value.len()].fill(true);
                }
            }
            let expected: String =
                text.chars().zip(is_masked).filter(|(_, is)| !is).map(|(c, _)| c).collect();
            let left = masked(&Mask::of(&env(values)), &text).replace(MASK, "");
            assert_eq!(left, expected, "{text}");
        }
    }

    /// Values that end alike cost no more than others.
    #[test]
    fn an_environment_takes_memory_by_its_size() {
        let values = (8..200).map(|n| "a".repeat(n)).chain(["a".repeat(40_000)]);
        let mask = Mask::of(&env(values));
        let bytes = mask.0.as_ref().unwrap().forwards.automaton.memory_usage();
        assert!(bytes < 4 * 1024 * 1024, "{bytes}");
        assert_eq!(masked(&mask, &"a".repeat(100_000)), MASK);
    }

    #[test]
    fn each_line_of_a_value_is_a_value() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\r\n  hkiG9w0BAQEFAASC\nend\n";
        let mask = Mask::of(&env([key]));
        for (text, expected) in [
            (key, "***\n"),
            ("MIIEvQIBADANBgkq", "***"),
            ("> hkiG9w0BAQEFAASC <", "> *** <"),
            ("end", "end"),
        ] {
            assert_eq!(masked(&mask, text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_a_cut_leaves_of_a_value_is_masked() {
        let mask = Mask::of(&env(["0123456789abcdef", "tokén-of-someone"]));
        for (text, expected, cut) in [
            ("ends 0123456789abcde", "ends ***", "ends ***"),
            ("ends 01234567", "ends ***", "ends ***"),
            ("ends 0123456", "ends 0123456", "ends ***"),
            ("ends tok", "ends tok", "ends ***"),
            ("ends t", "ends t", "ends ***"),
            ("ends here", "ends here", "ends here"),
            ("123456789abcdef begins", "*** begins", "*** begins"),
            ("89abcdef begins", "*** begins", "*** begins"),
            ("9abcdef begins", "9abcdef begins", "9abcdef begins"),
            ("én-of-someone begins", "*** begins", "*** begins"),
            ("123456789abcdef0123456789abcde", "******", "******"),
            ("only 89abcdef within", "only 89abcdef within", "only 89abcdef within"),
        ] {
            assert_eq!(masked(&mask, text), expected, "{text}");
            let mut cut_text = text.to_owned();
            mask.apply_to_cut(&mut cut_text);
            assert_eq!(cut_text, cut, "{text}");
        }
    }
}
