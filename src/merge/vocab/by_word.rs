//! The child's rows by word: which words it has, and which row of each parent stands for each.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;

use crate::checkpoint::{Checkpoint, Side, Vocabulary};
use crate::error::{Error, Kind, Result};
use crate::merge::options::{MergeOptions, VocabMode};
use crate::merge::vocab::comparison::{incomparable, quoted};
use crate::merge::vocab::edges::{EdgeRows, Edges};
use crate::merge::vocab::row_map::RowMap;
use crate::merge::vocab::rows::Vocab;
use crate::tensor::counted;

/// The child's rows by word, and what became of both parents'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ByWord {
    /// Rows of the child.
    pub rows: u64,
    /// The primary's rows that the child has, in their places.
    pub kept: u64,
    /// Words of both parents.
    pub matched: u64,
    /// Those of them that have another row in the secondary.
    pub moved: u64,
    /// Words of the secondary that the child has and the primary has not.
    pub added: u64,
    /// Words of the secondary that the child has not.
    pub left_out: u64,
    /// Per parent, primary first, between which rows those that it lacks are computed.
    pub edges: [Option<EdgeRows>; 2],
    /// CRC-32 of both maps: it changes with any row.
    pub maps_crc32: String,
    /// Where the child's rows are in the primary and in the secondary.
    #[serde(skip)]
    pub maps: [Arc<RowMap>; 2],
    /// Row and word of what the primary's tokenizer lacks, by row.
    #[serde(skip)]
    pub new_words: Vec<(u64, String)>,
}

/// A tensor's rows by word.
#[derive(Clone, Debug, Serialize)]
pub struct WordRows {
    /// The dimension that has one place per token.
    pub axis: usize,
    /// The rows of the whole model.
    #[serde(skip)]
    pub by: Arc<ByWord>,
}

impl ByWord {
    /// The map of one parent.
    pub fn map(&self, side: Side) -> &Arc<RowMap> {
        &self.maps[usize::from(side == Side::Secondary)]
    }

    /// The edge rows of one parent; nothing where it lacks no row.
    pub fn edges_of(&self, side: Side) -> Edges {
        let edges = &self.edges[usize::from(side == Side::Secondary)];
        edges.as_ref().map(|edges| edges.rows).unwrap_or_default()
    }

    /// What became of the rows, in one line.
    pub fn sentence(&self) -> String {
        format!(
            "{} rows kept, {} matched, {} of them moved; of the secondary's, {} added and {} left out",
            self.kept,
            counted(self.matched, "word"),
            self.moved,
            self.added,
            self.left_out
        )
    }
}

/// The child's rows where they are asked for by word; `None` where they are not.
///
/// # Errors
/// [`Kind::Data`] where the vocabularies can't be compared, or one of them gives one row to two words.
pub(crate) fn by_word(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    vocab: Option<Vocab>,
    options: &MergeOptions,
) -> Result<Option<Arc<ByWord>>> {
    if !options.vocab.is_by_word() {
        return Ok(None);
    }
    let (ours, theirs) = (&primary.vocabulary, &secondary.vocabulary);
    let refused = |parent: &Checkpoint, why: String| {
        Error::new(Kind::Data, "the vocabularies can't be merged by word")
            .file(&parent.path)
            .expected("words that can be compared", why)
            .with_hint("--vocab rows merges row by row, whatever the word")
    };
    let Some(vocab) = vocab else {
        return Err(refused(primary, "a parent without an input embedding".to_owned()));
    };
    if let Some(why) = incomparable(ours, theirs) {
        return Err(refused(primary, why));
    }
    for (parent, words) in [(primary, ours), (secondary, theirs)] {
        if let Some((row, [a, b])) = words.doubled() {
            return Err(refused(parent, format!("row {row}: {} and {}", quoted(a), quoted(b))));
        }
    }
    if options.vocab == VocabMode::Union && ours.is_open() {
        let file = ours.file().unwrap_or_default();
        let found =
            format!("`{file}`, whose special tokens are known to the tokenizer's code alone");
        return Err(refused(primary, found).with_hint(
            "save that tokenizer anew with transformers, so that it has a tokenizer.json; --vocab \
             primary needs no new rows",
        ));
    }
    let special = |row: u64| !primary.special_tokens.keys_of(row).is_empty();
    let sources = Sources::of(ours, theirs, vocab, options.vocab == VocabMode::Union, &special);
    let maps = [
        Arc::new(RowMap::new(sources.rows.iter().map(|row| row[0]), vocab.primary)),
        Arc::new(RowMap::new(sources.rows.iter().map(|row| row[1]), vocab.secondary)),
    ];
    let edges = [Side::Primary, Side::Secondary].map(|side| {
        let lacks = maps[usize::from(side == Side::Secondary)].missing() > 0;
        lacks.then(|| EdgeRows::between(side, primary, secondary, vocab, options.extend))
    });
    let kept = maps[0].rows() - maps[0].missing();
    let maps_crc32 = format!("{:08x}", fingerprint(&maps));
    let Sources { rows, matched, moved, new_words, left_out } = sources;
    let added = new_words.len() as u64;
    let rows = rows.len() as u64;
    Ok(Some(Arc::new(ByWord {
        rows,
        kept,
        matched,
        moved,
        added,
        left_out,
        edges,
        maps_crc32,
        maps,
        new_words,
    })))
}

fn fingerprint(maps: &[Arc<RowMap>; 2]) -> u32 {
    let runs = maps.iter().flat_map(|map| map.runs());
    let numbers = runs.flat_map(|run| [run.rows, run.from.map_or(u64::MAX, |from| from)]);
    let bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
    crate::tensor::crc32(&bytes)
}

/// Of each row of the child, the rows of the primary and of the secondary.
struct Sources {
    rows: Vec<[Option<u64>; 2]>,
    matched: u64,
    moved: u64,
    new_words: Vec<(u64, String)>,
    left_out: u64,
}

impl Sources {
    /// The primary's rows stay; a union has the secondary's other words as well, in their order, first
    /// in rows that no word of the primary names and that are not `special`, then behind them. A row
    /// that neither parent names is a pair of rows like any.
    fn of(
        ours: &Vocabulary,
        theirs: &Vocabulary,
        vocab: Vocab,
        union: bool,
        special: &dyn Fn(u64) -> bool,
    ) -> Sources {
        let own = |words: &Vocabulary, rows: u64| -> Vec<bool> {
            let mut named = vec![false; usize::try_from(rows).unwrap_or(0)];
            for (row, _) in words.words().take_while(|(row, _)| *row < rows) {
                if let Some(named) = usize::try_from(row).ok().and_then(|row| named.get_mut(row)) {
                    *named = true;
                }
            }
            named
        };
        let (ours_named, theirs_named) = (own(ours, vocab.primary), own(theirs, vocab.secondary));
        let theirs_ids = theirs.ids();
        let mut found = Sources {
            rows: Vec::with_capacity(ours_named.len()),
            matched: 0,
            moved: 0,
            new_words: Vec::new(),
            left_out: 0,
        };
        for (row, named) in (0u64..).zip(&ours_named) {
            let word = if *named { ours.word(row) } else { None };
            let partner = match word {
                Some(word) => theirs_ids.get(word).copied().filter(|id| *id < vocab.secondary),
                None => {
                    let place = usize::try_from(row).unwrap_or(usize::MAX);
                    (theirs_named.get(place) == Some(&false)).then_some(row)
                }
            };
            if word.is_some()
                && let Some(id) = partner
            {
                found.matched += 1;
                found.moved += u64::from(id != row);
            }
            found.rows.push([Some(row), partner]);
        }
        let known: HashSet<&str> =
            ours.words().filter(|(row, _)| *row < vocab.primary).map(|(_, word)| word).collect();
        let unnamed = (0u64..).zip(&ours_named).filter(|(_, named)| !**named).map(|(row, _)| row);
        let mut free = unnamed.filter(|row| !special(*row));
        let others = theirs.words().take_while(|(id, _)| *id < vocab.secondary);
        for (id, word) in others.filter(|(_, word)| !known.contains(word)) {
            if !union {
                found.left_out += 1;
                continue;
            }
            let row = free.next().unwrap_or(found.rows.len() as u64);
            let sources = [None, Some(id)];
            match usize::try_from(row).ok().and_then(|row| found.rows.get_mut(row)) {
                Some(place) => *place = sources,
                None => found.rows.push(sources),
            }
            found.new_words.push((row, word.to_owned()));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::llama;

    type Rows<'w> = &'w [(u64, &'w str)];

    fn made(ours: (u64, Rows<'_>), theirs: (u64, Rows<'_>), vocab: VocabMode) -> ByWord {
        let parent = |(rows, words): (u64, Rows<'_>)| llama(rows).words(words).open();
        let (a, b) = (parent(ours), parent(theirs));
        let options = MergeOptions { vocab, ..MergeOptions::default() };
        let rows = Vocab::of(&a, &b);
        let found = by_word(&a, &b, rows, &options).unwrap().unwrap();
        Arc::unwrap_or_clone(found)
    }

    /// Of each row of the child, the rows of both parents.
    fn sources(found: &ByWord) -> Vec<[Option<u64>; 2]> {
        let rows = |map: &RowMap| -> Vec<Option<u64>> {
            map.runs()
                .iter()
                .flat_map(|run| (0..run.rows).map(|at| run.from.map(|from| from + at)))
                .collect()
        };
        let [ours, theirs] = [rows(&found.maps[0]), rows(&found.maps[1])];
        ours.into_iter().zip(theirs).map(|(a, b)| [a, b]).collect()
    }

    #[test]
    fn a_union_keeps_the_primarys_rows_and_adds_the_others_behind_them() {
        let ours = (3, &[(0, "a"), (1, "b"), (2, "[PAD]")][..]);
        let theirs = (4, &[(0, "b"), (1, "a"), (2, "<x>"), (3, "<y>")][..]);
        let found = made(ours, theirs, VocabMode::Union);
        assert_eq!(
            sources(&found),
            [
                [Some(0), Some(1)],
                [Some(1), Some(0)],
                [Some(2), None],
                [None, Some(2)],
                [None, Some(3)]
            ]
        );
        assert_eq!(found.new_words, [(3, "<x>".to_owned()), (4, "<y>".to_owned())]);
        let counts = |found: &ByWord| {
            [found.rows, found.kept, found.matched, found.moved, found.added, found.left_out]
        };
        assert_eq!(counts(&found), [5, 3, 2, 2, 2, 0]);
        let found = made(ours, theirs, VocabMode::Primary);
        assert_eq!(sources(&found), [[Some(0), Some(1)], [Some(1), Some(0)], [Some(2), None]]);
        assert_eq!(counts(&found), [3, 3, 2, 2, 0, 2]);
    }

    #[test]
    fn rows_without_words_are_filled_first_and_else_merged_with_their_like() {
        let ours = (5, &[(0, "a"), (2, "c")][..]);
        // Row 1 has a word there, row 3 has none in either, and the secondary has no row 4.
        let theirs = (4, &[(0, "a"), (1, "c"), (2, "d")][..]);
        let found = made(ours, theirs, VocabMode::Union);
        assert_eq!(
            sources(&found),
            [
                [Some(0), Some(0)],
                [None, Some(2)],
                [Some(2), Some(1)],
                [Some(3), Some(3)],
                [Some(4), None]
            ]
        );
        let found = made(ours, theirs, VocabMode::Primary);
        assert_eq!(
            sources(&found),
            [
                [Some(0), Some(0)],
                [Some(1), None],
                [Some(2), Some(1)],
                [Some(3), Some(3)],
                [Some(4), None]
            ]
        );
    }

    #[test]
    fn the_row_of_a_special_token_that_no_file_names_is_not_filled() {
        let a = llama(3).words(&[(0, "a")]).config(r#"{"pad_token_id": 1}"#).open();
        let b = llama(3).words(&[(0, "a"), (2, "b")]).config("{}").open();
        let options = MergeOptions { vocab: VocabMode::Union, ..MergeOptions::default() };
        let found = by_word(&a, &b, Vocab::of(&a, &b), &options).unwrap().unwrap();
        assert_eq!(found.new_words, [(2, "b".to_owned())]);
    }

    #[test]
    fn what_can_not_be_merged_by_word_is_refused() {
        let parent = |words: Rows<'_>| llama(4).words(words).open();
        let options = MergeOptions { vocab: VocabMode::Union, ..MergeOptions::default() };
        let of = |a: &Checkpoint, b: &Checkpoint| by_word(a, b, Vocab::of(a, b), &options);
        let (some, none) = (parent(&[(0, "a")]), llama(4).open());
        for (a, b) in [(&some, &none), (&none, &some)] {
            assert_eq!(of(a, b).unwrap_err().kind(), Kind::Data);
        }
        let mut doubled = parent(&[(0, "a")]);
        doubled.vocabulary.doubled = Some((0, ["a".to_owned(), "b".to_owned()]));
        assert!(of(&some, &doubled).unwrap_err().to_string().contains(r#"row 0: "a" and "b""#));
        let mut open = parent(&[(0, "a")]);
        open.vocabulary.open = true;
        assert!(of(&open, &some).is_err() && of(&some, &open).is_ok());
        let rows = MergeOptions::default();
        assert_eq!(by_word(&some, &some, Vocab::of(&some, &some), &rows).unwrap(), None);
    }
}
