//! Chooses the edge rows of a vocabulary, between which an extension interpolates its new rows.

use serde::Serialize;

use crate::checkpoint::{Checkpoint, Side, SpecialTokens};
use crate::merge::options::Extend;
use crate::merge::vocab::rows::Vocab;

/// Rows passed over that a sentence names; the others are counted.
const SHOWN: usize = 3;

/// The outermost rows that are no special token's. Counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Edges {
    /// The shorter vocabulary's last one: where the new rows begin.
    pub last: u64,
    /// The shorter vocabulary's first one: where a gradient ends.
    pub first: u64,
    /// The longer vocabulary's last one: where a bridge ends.
    pub longer_last: u64,
}

/// The edge rows of a merge and what a user should know of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EdgeRows {
    /// The parent with the shorter vocabulary.
    pub side: Side,
    /// The rows.
    #[serde(flatten)]
    pub rows: Edges,
    /// Which rows were passed over and why, in sentences, for the rows that the extension uses.
    pub notes: Vec<String>,
    #[serde(skip)]
    mode: Extend,
}

/// One edge of one vocabulary.
struct Edge {
    row: u64,
    note: Option<String>,
}

impl EdgeRows {
    /// The edge rows where one vocabulary is shorter; `None` where they are equal.
    ///
    /// New rows beside the row of the end of text would draw its probability, so an edge row is the
    /// outermost one, last or first, that bos, eos and pad leave free.
    pub fn of(
        vocab: Vocab,
        primary: &Checkpoint,
        secondary: &Checkpoint,
        mode: Extend,
    ) -> Option<EdgeRows> {
        if !vocab.differs() {
            return None;
        }
        let side = if vocab.primary < vocab.secondary { Side::Primary } else { Side::Secondary };
        Some(EdgeRows::between(side, primary, secondary, vocab, mode))
    }

    /// The edge rows of the rows that one parent lacks: its own, and the other's last one.
    pub(crate) fn between(
        side: Side,
        primary: &Checkpoint,
        secondary: &Checkpoint,
        vocab: Vocab,
        mode: Extend,
    ) -> EdgeRows {
        let (shorter, longer, n, m) = match side {
            Side::Primary => (primary, secondary, vocab.primary, vocab.secondary),
            Side::Secondary => (secondary, primary, vocab.secondary, vocab.primary),
        };
        let tokens = &shorter.special_tokens;
        let last = edge(tokens, (0..n).rev(), "last", "");
        let first = edge(tokens, 0..n, "first", "");
        let other = match side {
            Side::Primary => Side::Secondary,
            Side::Secondary => Side::Primary,
        };
        let of_longer = format!(" of the {}", other.name());
        let longer_last = edge(&longer.special_tokens, (0..m).rev(), "last", &of_longer);
        let rows = Edges { last: last.row, first: first.row, longer_last: longer_last.row };
        let ends = if mode == Extend::Bridge { longer_last } else { first };
        let mut notes: Vec<String> = last.note.into_iter().chain(ends.note).collect();
        notes.dedup();
        if tokens.is_empty() {
            let side = side.name();
            notes.push(format!(
                "no config of the {side} names its special tokens, so its outermost rows are taken"
            ));
        }
        EdgeRows { side, rows, notes, mode }
    }

    /// Whether the extension makes new rows between them.
    pub fn are_used(&self) -> bool {
        matches!(self.mode, Extend::Gradient | Extend::Bridge)
    }

    /// The rows and what was passed over, in one line.
    pub fn sentence(&self) -> String {
        let (Edges { last, first, longer_last }, side) = (self.rows, self.side.name());
        let mut text = match (self.mode, self.side) {
            (Extend::Bridge, Side::Primary) => {
                format!("{last} of the primary and {longer_last} of the secondary")
            }
            (Extend::Bridge, Side::Secondary) => {
                format!("{last} of the secondary and {longer_last} of the primary")
            }
            _ => format!("{last} and {first} of the {side}"),
        };
        for note in &self.notes {
            text.push_str("; ");
            text.push_str(note);
        }
        text
    }
}

/// The first of `rows` that is no special token's; the outermost where all are.
fn edge(
    tokens: &SpecialTokens,
    mut rows: impl Iterator<Item = u64> + Clone,
    which: &str,
    whose: &str,
) -> Edge {
    let Some(outermost) = rows.clone().next() else { return Edge { row: 0, note: None } };
    // At most one step more than there are special tokens.
    let Some(row) = rows.find(|row| tokens.keys_of(*row).is_empty()) else {
        let note = format!(
            "every row{whose} is a special token's, so the outermost is taken all the same"
        );
        return Edge { row: outermost, note: Some(note) };
    };
    let passed = row.abs_diff(outermost);
    if passed == 0 {
        return Edge { row, note: None };
    }
    let step = |i: u64| if row < outermost { outermost - i } else { outermost + i };
    let mut reasons: Vec<String> = (0..passed.min(SHOWN as u64))
        .map(|i| {
            let place = step(i);
            let whose = if i == 0 { whose } else { "" };
            format!("row {place}{whose} is {}", tokens.keys_of(place).join(" and "))
        })
        .collect();
    match passed.saturating_sub(SHOWN as u64) {
        0 => {}
        1 => reasons.push("1 more is a special token".to_owned()),
        more => reasons.push(format!("{more} more are special tokens")),
    }
    let note = format!(
        "{}, so row {row} is {} {which} edge row",
        listed(&reasons),
        if whose.is_empty() { "the" } else { "its" }
    );
    Edge { row, note: Some(note) }
}

/// `a`, `a and b`, `a, b and c`.
fn listed(words: &[String]) -> String {
    match words {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::Headers;

    fn edges(rows: (u64, u64), configs: (&str, &str), mode: Extend) -> EdgeRows {
        let parent = |text: &str| Headers::new().config(text).open();
        let vocab = Vocab { primary: rows.0, secondary: rows.1 };
        EdgeRows::of(vocab, &parent(configs.0), &parent(configs.1), mode).expect("a difference")
    }

    /// Last and first edge row of a gradient over `n` rows, and the sentence.
    fn gradient(n: u64, config: &str) -> (u64, u64, String) {
        let found = edges((n, n + 8), (config, "{}"), Extend::Gradient);
        (found.rows.last, found.rows.first, found.sentence())
    }

    #[test]
    fn plain_rows_at_both_ends_are_the_edges() {
        let (last, first, sentence) = gradient(512, r#"{"bos_token_id": 1, "eos_token_id": 2}"#);
        assert_eq!((last, first), (511, 0));
        assert_eq!(sentence, "511 and 0 of the primary");
    }

    #[test]
    fn special_tokens_at_either_end_are_passed_over_and_named() {
        let (last, first, sentence) =
            gradient(512, r#"{"bos_token_id": 511, "eos_token_id": 511}"#);
        assert_eq!((last, first), (510, 0));
        assert_eq!(
            sentence,
            "510 and 0 of the primary; row 511 is bos_token_id and eos_token_id, so row 510 is the last edge row"
        );
        let (_, _, sentence) = gradient(10, r#"{"eos_token_id": [9, 8, 7, 6]}"#);
        assert!(sentence.contains("row 7 is eos_token_id and 1 more is a special token, so row 5"));
        let many = r#"{"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": [2, 3, 4, 9]}"#;
        let (last, first, sentence) = gradient(10, many);
        assert_eq!((last, first), (8, 5));
        assert_eq!(
            sentence,
            "8 and 5 of the primary; row 9 is eos_token_id, so row 8 is the last edge row; row 0 is bos_token_id, row 1 is pad_token_id, row 2 is eos_token_id and 2 more are special tokens, so row 5 is the first edge row"
        );
    }

    #[test]
    fn special_tokens_further_in_and_beyond_the_rows_stay_where_they_are() {
        let (last, first, _) = gradient(8, r#"{"eos_token_id": [5, 8, 100], "pad_token_id": 1}"#);
        assert_eq!((last, first), (7, 0));
    }

    #[test]
    fn where_all_rows_are_special_the_outermost_are_taken_and_a_note_says_so() {
        let (last, first, sentence) = gradient(2, r#"{"bos_token_id": 0, "eos_token_id": 1}"#);
        assert_eq!((last, first), (1, 0));
        assert_eq!(
            sentence,
            "1 and 0 of the primary; every row is a special token's, so the outermost is taken all the same"
        );
        // One row that is free is both edges.
        let (last, first, _) = gradient(3, r#"{"bos_token_id": 0, "eos_token_id": 2}"#);
        assert_eq!((last, first), (1, 1));
    }

    #[test]
    fn a_bridge_ends_at_the_longer_parents_own_last_edge_row() {
        let configs = (r#"{"eos_token_id": 7}"#, r#"{"pad_token_id": 11, "eos_token_id": 7}"#);
        let found = edges((12, 8), (configs.1, configs.0), Extend::Bridge);
        assert_eq!(found.side, Side::Secondary);
        assert_eq!(found.rows, Edges { last: 6, first: 0, longer_last: 10 });
        assert_eq!(
            found.sentence(),
            "6 of the secondary and 10 of the primary; row 7 is eos_token_id, so row 6 is the last edge row; row 11 of the primary is pad_token_id, so row 10 is its last edge row"
        );
        // The shorter parent's ids say nothing of the longer one's rows.
        let found = edges((8, 12), (r#"{"eos_token_id": 11}"#, "{}"), Extend::Bridge);
        assert_eq!(found.rows, Edges { last: 7, first: 0, longer_last: 11 });
        assert_eq!(found.sentence(), "7 of the primary and 11 of the secondary");
        // Only the first row passed over says whose it is.
        let found = edges(
            (8, 12),
            (r#"{"eos_token_id": 1}"#, r#"{"eos_token_id": [10, 11]}"#),
            Extend::Bridge,
        );
        assert_eq!(
            found.sentence(),
            "7 of the primary and 9 of the secondary; row 11 of the secondary is eos_token_id and row 10 is eos_token_id, so row 9 is its last edge row"
        );
    }

    #[test]
    fn without_known_tokens_a_note_says_that_none_could_be_passed_over() {
        let (last, first, sentence) = gradient(8, "{}");
        assert_eq!((last, first), (7, 0));
        assert_eq!(
            sentence,
            "7 and 0 of the primary; no config of the primary names its special tokens, so its outermost rows are taken"
        );
    }

    #[test]
    fn only_gradient_and_bridge_use_edge_rows_and_equal_vocabularies_have_none() {
        for (mode, used) in [
            (Extend::Gradient, true),
            (Extend::Bridge, true),
            (Extend::Inherit, false),
            (Extend::Mean, false),
            (Extend::Zero, false),
        ] {
            assert_eq!(edges((8, 9), ("{}", "{}"), mode).are_used(), used, "{mode:?}");
        }
        let parent = Headers::new().open();
        let vocab = Vocab { primary: 8, secondary: 8 };
        assert_eq!(EdgeRows::of(vocab, &parent, &parent, Extend::Gradient), None);
    }
}
