//! What the words of two vocabularies say of each other: may row be merged with row.

use serde::Serialize;

use crate::checkpoint::{Checkpoint, Side, Vocabulary};
use crate::error::{Error, Kind, Result};
use crate::merge::vocab::rows::Vocab;
use crate::tensor::{counted, escape};

/// Differences that are shown.
const SHOWN: usize = 5;

/// Characters of a word that are shown.
const LONGEST: usize = 40;

/// How two vocabularies stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Every row has one word, or none.
    Same,
    /// The primary has the secondary's words in their rows, and more.
    PrimaryExtends,
    /// The secondary has the primary's words in their rows, and more.
    SecondaryExtends,
    /// Each names rows that the other does not, and no row has two words.
    BothExtend,
    /// A row has two words, or a word two rows.
    Different,
    /// Not known.
    NotComparable,
}

/// The words of two vocabularies, compared row by row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// How they stand to each other.
    pub relation: Relation,
    /// Rows that have a word in the primary and in the secondary.
    pub words: [u64; 2],
    /// Rows with two words, and words with two rows.
    pub different: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
    /// Why they can't be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Comparison {
    /// Compares the words of the rows that each model has; padding and ids beyond the rows aside.
    pub fn of(primary: &Vocabulary, secondary: &Vocabulary, vocab: Vocab) -> Comparison {
        let words =
            |of: &Vocabulary, rows: u64| of.words().filter(|(id, _)| *id < rows).count() as u64;
        let mut found = Comparison {
            relation: Relation::NotComparable,
            words: [words(primary, vocab.primary), words(secondary, vocab.secondary)],
            different: 0,
            examples: Vec::new(),
            reason: incomparable(primary, secondary),
        };
        if found.reason.is_none() {
            found.compare(primary, secondary, vocab);
        }
        found
    }

    fn compare(&mut self, primary: &Vocabulary, secondary: &Vocabulary, vocab: Vocab) {
        let mut ours = primary.words().take_while(|(id, _)| *id < vocab.primary).peekable();
        let mut theirs = secondary.words().take_while(|(id, _)| *id < vocab.secondary).peekable();
        // Words of rows that only one parent names.
        let (mut ours_alone, mut theirs_alone) = (Vec::new(), Vec::new());
        loop {
            match (ours.peek().copied(), theirs.peek().copied()) {
                (None, None) => break,
                (Some((a, word)), Some((b, other))) if a == b => {
                    if word != other {
                        self.differ(|| format!("{a}: {} and {}", quoted(word), quoted(other)));
                    }
                    ours.next();
                    theirs.next();
                }
                (Some(a), b) if b.is_none_or(|b| a.0 < b.0) => {
                    ours_alone.push(a);
                    ours.next();
                }
                (_, b) => {
                    theirs_alone.extend(b);
                    theirs.next();
                }
            }
        }
        if self.different == 0 && !ours_alone.is_empty() && !theirs_alone.is_empty() {
            let ours: std::collections::HashMap<&str, u64> =
                ours_alone.iter().map(|(row, word)| (*word, *row)).collect();
            for (row, word) in &theirs_alone {
                if let Some(other) = ours.get(word) {
                    self.differ(|| format!("{}: row {other} and row {row}", quoted(word)));
                }
            }
        }
        self.relation = match (self.different, ours_alone.is_empty(), theirs_alone.is_empty()) {
            (0, true, true) => Relation::Same,
            (0, false, true) => Relation::PrimaryExtends,
            (0, true, false) => Relation::SecondaryExtends,
            (0, false, false) => Relation::BothExtend,
            _ => Relation::Different,
        };
    }

    fn differ(&mut self, example: impl Fn() -> String) {
        self.different += 1;
        if self.examples.len() < SHOWN {
            self.examples.push(example());
        }
    }

    /// The parent that has the other's words in their rows, and more.
    pub fn extends(&self) -> Option<Side> {
        match self.relation {
            Relation::PrimaryExtends => Some(Side::Primary),
            Relation::SecondaryExtends => Some(Side::Secondary),
            _ => None,
        }
    }

    /// All of it in one line.
    pub fn sentence(&self) -> String {
        let more = |more: u64, less: u64| more.saturating_sub(less);
        let [ours, theirs] = self.words;
        match self.relation {
            Relation::Same => format!("the same {} in both", counted(ours, "word")),
            Relation::PrimaryExtends => {
                format!("the primary has the secondary's and {} more", more(ours, theirs))
            }
            Relation::SecondaryExtends => {
                format!("the secondary has the primary's and {} more", more(theirs, ours))
            }
            Relation::BothExtend => "each parent names rows that the other does not".to_owned(),
            Relation::Different => self.differences(),
            Relation::NotComparable => {
                format!("not comparable: {}", self.reason.as_deref().unwrap_or_default())
            }
        }
    }

    /// How many rows differ, and the first of them.
    fn differences(&self) -> String {
        let different = counted(self.different, "difference");
        let rest = if self.different > self.examples.len() as u64 { ", …" } else { "" };
        format!("{different}: {}{rest}", self.examples.join(", "))
    }
}

/// Refuses vocabularies that give one row to different words.
///
/// # Errors
/// [`Kind::Data`] with the first of them and the ways on.
pub(crate) fn check_words(found: &Comparison, secondary: &Checkpoint) -> Result<()> {
    if found.relation != Relation::Different {
        return Ok(());
    }
    Err(Error::new(Kind::Data, "the vocabularies give one row to different words")
        .file(&secondary.path)
        .expected("the primary's words in their rows", found.differences())
        .with_hint(
            "--vocab union or --vocab primary merges by word, whatever the row; --vocab rows merges \
             row by row, whatever the word (right where reserved rows were given new words)",
        ))
}

/// Why two vocabularies can't be compared; `None` where they can.
pub(crate) fn incomparable(primary: &Vocabulary, secondary: &Vocabulary) -> Option<String> {
    let no_files = |side: &str| format!("the {side} has no tokenizer files");
    match (primary.file(), secondary.file()) {
        (None, None) => return Some("neither parent has tokenizer files".to_owned()),
        (None, Some(_)) => return Some(no_files("primary")),
        (Some(_), None) => return Some(no_files("secondary")),
        (Some(_), Some(_)) => {}
    }
    for (side, vocabulary) in [("primary", primary), ("secondary", secondary)] {
        if vocabulary.is_empty() {
            let file = escape(vocabulary.file().unwrap_or_default());
            let why = vocabulary.unread().unwrap_or("it has no words");
            return Some(format!("the words of the {side}'s `{file}` are not known: {why}"));
        }
    }
    let (ours, theirs) = (primary.spelling(), secondary.spelling());
    (ours != theirs).then(|| {
        format!("words are spelled as {ours} in the primary, as {theirs} in the secondary")
    })
}

/// A word as it is shown: in quotes, cut where it is long.
pub(crate) fn quoted(word: &str) -> String {
    let mut characters = word.chars();
    let start: String = characters.by_ref().take(LONGEST).collect();
    let rest = if characters.next().is_some() { "…" } else { "" };
    format!("\"{}{rest}\"", escape(&start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::llama;
    use crate::merge::{MergeOptions, plan};

    type Rows<'w> = &'w [(u64, &'w str)];

    fn compared(ours: Rows<'_>, theirs: Rows<'_>, rows: (u64, u64)) -> Comparison {
        let vocab = Vocab { primary: rows.0, secondary: rows.1 };
        Comparison::of(&Vocabulary::of_words(ours), &Vocabulary::of_words(theirs), vocab)
    }

    #[test]
    fn two_words_of_a_row_or_two_rows_of_a_word_are_a_difference() {
        use Relation::{BothExtend, Different, PrimaryExtends, Same, SecondaryExtends};
        let base = [(0, "a"), (1, "b")];
        for (ours, theirs, relation, different) in [
            (&base[..], &base[..], Same, 0),
            (&base, &[(0, "a"), (1, "b"), (2, "c")], SecondaryExtends, 0),
            (&[(0, "a"), (1, "b"), (2, "c")], &base, PrimaryExtends, 0),
            (&[(0, "a"), (2, "c")], &base, BothExtend, 0),
            (&base, &[(0, "b"), (1, "a")], Different, 2),
            (&[(0, "a"), (2, "[PAD]")], &[(0, "a"), (3, "[PAD]")], Different, 1),
            // Tokens in front.
            (&base, &[(0, "x"), (1, "a"), (2, "b")], Different, 2),
            // Beyond the rows of the model: no row's.
            (&[(0, "a"), (4, "x")], &[(0, "a"), (4, "y")], Same, 0),
        ] {
            let found = compared(ours, theirs, (4, 4));
            assert_eq!((found.relation, found.different), (relation, different), "{found:?}");
        }
    }

    #[test]
    fn the_sentence_has_the_count_and_five_examples() {
        let ours: Vec<(u64, &str)> = (0..7).map(|row| (row, "x")).collect();
        let mut words: Vec<String> = (0..7).map(|row| format!("w{row}")).collect();
        words[0] = "\n".to_owned();
        let theirs: Vec<(u64, &str)> = (0..7).zip(words.iter().map(String::as_str)).collect();
        let mut found = compared(&[(0, "[PAD]")], &[(0, "<|im_start|>")], (9, 9));
        assert_eq!(found.sentence(), r#"1 difference: 0: "[PAD]" and "<|im_start|>""#);
        // Of one word in several rows the last one is left, so the rows are named one by one.
        let names: Vec<String> = (0..7).map(|row| format!("v{row}")).collect();
        let ours: Vec<(u64, &str)> =
            ours.iter().map(|(row, _)| *row).zip(names.iter().map(String::as_str)).collect();
        found = compared(&ours, &theirs, (9, 9));
        assert_eq!((found.different, found.examples.len()), (7, 5));
        assert_eq!(found.examples[0], r#"0: "v0" and "\n""#);
        assert!(found.sentence().ends_with(", …"));
        assert_eq!(quoted(&"x".repeat(41)), format!("\"{}…\"", "x".repeat(40)));
    }

    #[test]
    fn what_can_not_be_compared_says_why() {
        let (none, some) = (Vocabulary::default(), Vocabulary::of_words(&[(0, "a")]));
        let mut spaces = some.clone();
        spaces.spelling = crate::checkpoint::Spelling::of(["▁a"].into_iter());
        let mut unread = Vocabulary::of_words(&[]);
        unread.unread = Some("odd".to_owned());
        for (ours, theirs, reason) in [
            (&none, &none, "neither parent has tokenizer files"),
            (&some, &none, "the secondary has no tokenizer files"),
            (&none, &some, "the primary has no tokenizer files"),
            (&unread, &some, "the words of the primary's `tokenizer.json` are not known: odd"),
            (
                &some,
                &spaces,
                "words are spelled as plain text in the primary, as sentencepiece (`▁` for a space) in the secondary",
            ),
        ] {
            let found = Comparison::of(ours, theirs, Vocab { primary: 4, secondary: 4 });
            assert_eq!(found.relation, Relation::NotComparable);
            assert_eq!(found.reason.as_deref(), Some(reason));
        }
    }

    #[test]
    fn a_plan_refuses_a_clash_and_nothing_else_and_rows_merges_all_the_same() {
        let base = [(0, "a"), (1, "b")];
        let parent = |words: Rows<'_>| llama(64).words(words).open();
        let rows = MergeOptions { vocab: crate::merge::VocabMode::Rows, ..MergeOptions::default() };
        for (theirs, fits) in [
            (&base[..], true),
            (&[], true),
            (&[(0, "a"), (1, "b"), (63, "c")], true),
            (&[(0, "a"), (1, "c")], false),
            // No row of the model.
            (&[(0, "a"), (1, "b"), (64, "c")], true),
        ] {
            let (a, b) = (parent(&base), parent(theirs));
            let made = plan(&a, &b, &MergeOptions::default());
            assert_eq!(made.is_ok(), fits, "{theirs:?}");
            if let Err(error) = made {
                assert_eq!(error.kind(), Kind::Data);
                assert!(error.to_string().contains(r#"1 difference: 1: "b" and "c""#), "{error}");
                let hint = error.hint().unwrap_or_default();
                assert!(["union", "primary", "rows"].iter().all(|word| hint.contains(word)));
            }
            let made = plan(&a, &b, &rows).unwrap();
            assert!(made.words.is_some() && made.storages.iter().all(|s| s.extension.is_none()));
        }
    }
}
