//! The errors of pairing, for parents that don't fit each other.

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::names::embeddings::{embedding, is_vocab_name};
use crate::merge::pair::Pair;
use crate::merge::vocab::axis::may_have_tokens;
use crate::merge::vocab::rows::Vocab;
use crate::tensor::{counted, escape};

/// Mismatches shown in one error; the count of the others follows.
const SHOWN: usize = 50;

/// A line for each mismatch, indented, up to [`SHOWN`] of them.
pub(crate) fn capped(lines: &[String]) -> String {
    let mut text: String = lines.iter().take(SHOWN).map(|line| format!("\n  {line}")).collect();
    if lines.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", lines.len() - SHOWN));
    }
    text
}

/// Tensors of one name that differ in shape, or in the kind of dtype.
pub(crate) fn shape_error(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    mismatches: &[String],
) -> Error {
    Error::new(Kind::Data, "the parents are of different sizes, or not the same architecture")
        .file(&secondary.path)
        .expected(
            format!("the shapes and kinds of `{}`", primary.path.display()),
            format!(
                "{} (primary and secondary):{}",
                match mismatches.len() {
                    1 => "1 tensor that differs".to_owned(),
                    count => format!("{count} tensors that differ"),
                },
                capped(mismatches)
            ),
        )
        .with_hint(
            "merge only checkpoints of one architecture and size; nothing is ever cut to fit",
        )
}

/// No tensor has a partner, but for copied buffers.
pub(crate) fn nothing_shared(primary: &Checkpoint, secondary: &Checkpoint) -> Error {
    let first = |checkpoint: &Checkpoint| {
        let tensor = checkpoint.inventory.tensors.first();
        tensor.map_or("no tensor".to_owned(), |tensor| format!("`{}`", escape(&tensor.name)))
    };
    Error::new(Kind::Data, "the parents have no tensor in common")
        .file(&secondary.path)
        .expected(
            format!("the names of `{}`: {} and others", primary.path.display(), first(primary)),
            format!("{} and others", first(secondary)),
        )
        .with_hint(
            "merge only checkpoints of one architecture; `llm-slerp-merge find DIR` shows which fit",
        )
}

/// Tensors without a partner where `--missing error` was given.
pub(crate) fn missing_error(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    only_primary: &[String],
    only_secondary: &[(usize, &TensorEntry)],
) -> Error {
    let mut lines: Vec<String> =
        only_primary.iter().map(|name| format!("{}: only in the primary", escape(name))).collect();
    lines.extend(
        only_secondary
            .iter()
            .map(|(_, tensor)| format!("{}: only in the secondary", escape(&tensor.name))),
    );
    Error::new(Kind::Data, "the parents do not have the same tensors")
        .file(&secondary.path)
        .expected(
            format!("the names of `{}`", primary.path.display()),
            format!("{}:{}", counted(lines.len() as u64, "other"), capped(&lines)),
        )
        .with_hint("--missing primary keeps the primary's tensors, --missing union those of both")
}

/// A tensor of the secondary whose name in the child is another's.
pub(crate) fn taken_twice(secondary: &Checkpoint, tensor: &TensorEntry, name: &str) -> Error {
    Error::new(Kind::Data, "two tensors would get one name")
        .file(&secondary.path)
        .tensor(&tensor.name)
        .expected("a name that the child has not yet", format!("`{}`", escape(name)))
        .with_hint("--missing primary leaves the secondary's others out")
}

/// Refuses a merge by word where a tensor may have rows of tokens that its name does not tell.
///
/// # Errors
/// [`Kind::Data`] with the first such tensor.
pub(crate) fn check_axes_known(primary: &Checkpoint, pairs: &[Pair], vocab: Vocab) -> Result<()> {
    let embedding = embedding(&primary.inventory);
    let width = embedding.and_then(|tensor| tensor.layout.shape.get(1).copied());
    if vocab.differs() || width == Some(vocab.primary) {
        return Ok(());
    }
    let unknown = pairs.iter().find(|pair| {
        pair.by_word.is_none()
            && pair.primary.zip(pair.secondary).is_some()
            && !is_vocab_name(&pair.name)
            && may_have_tokens(&pair.shape, vocab.primary)
    });
    let Some(pair) = unknown else { return Ok(()) };
    Err(Error::new(Kind::Data, "a tensor may have a row for each word")
        .file(&primary.path)
        .tensor(&pair.name)
        .expected("the name of an embedding or an output head", format!("{:?}", pair.shape))
        .with_hint("--vocab rows merges row by row, whatever the word"))
}

/// Refuses pairs that need an extension, where `--extend error` was given.
///
/// # Errors
/// [`Kind::Data`] with every such tensor.
pub(crate) fn check_no_extension(primary: &Checkpoint, pairs: &[Pair]) -> Result<()> {
    let lines: Vec<String> = pairs
        .iter()
        .filter_map(|pair| {
            if let Some(rows) = &pair.by_word {
                let [ours, theirs] = [0, 1].map(|side| rows.by.maps[side].missing());
                return (ours + theirs > 0).then(|| {
                    let name = escape(&pair.name);
                    format!(
                        "{name}: {} and {} are missing",
                        counted(ours, "row"),
                        counted(theirs, "row")
                    )
                });
            }
            let extension = pair.extension?;
            Some(format!(
                "{}: {} and {}",
                escape(&pair.name),
                counted(extension.from_rows, "row"),
                counted(extension.to_rows, "row")
            ))
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Data, "the vocabularies differ")
        .file(&primary.path)
        .expected(
            "equal vocabularies (--extend error)",
            format!("{} to extend:{}", counted(lines.len() as u64, "tensor"), capped(&lines)),
        )
        .with_hint("leave --extend at its default to extend the shorter vocabulary"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::{Headers, llama};
    use crate::merge::{Extend, MergeOptions, Missing, plan};

    fn refused(a: Headers, b: Headers, options: &MergeOptions) -> String {
        let error = plan(&a.open(), &b.open(), options).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        error.to_string()
    }

    #[test]
    fn fifty_lines_are_shown_and_the_others_counted() {
        let last = |count: usize| {
            let lines: Vec<String> = (1..=count).map(|line| format!("line {line}")).collect();
            let text = capped(&lines);
            (text.lines().count(), text.lines().last().unwrap_or_default().to_owned())
        };
        assert_eq!(last(0), (0, String::new()));
        assert_eq!(last(50), (51, "  line 50".to_owned()));
        assert_eq!(last(53), (52, "  and 3 more".to_owned()));
    }

    #[test]
    fn vocabularies_that_differ_are_refused_where_none_may_be_extended() {
        let options = MergeOptions { extend: Extend::Error, ..MergeOptions::default() };
        let said = refused(llama(64), llama(72), &options);
        assert!(said.starts_with("the vocabularies differ"), "{said}");
        for words in [
            "2 tensors to extend",
            "\n  model.embed_tokens.weight: 64 rows and 72 rows",
            "\n  lm_head.weight: 64 rows and 72 rows",
        ] {
            assert!(said.contains(words), "{said}");
        }
        let same = llama(64).open();
        assert!(plan(&same, &same, &options).is_ok());
    }

    #[test]
    fn parents_of_other_names_are_refused_with_the_first_of_each() {
        let options = MergeOptions { missing: Some(Missing::Primary), ..MergeOptions::default() };
        let said =
            refused(Headers::new().f16("a.w", &[2]), Headers::new().f16("b.w", &[2]), &options);
        assert!(said.starts_with("the parents have no tensor in common"), "{said}");
        assert!(said.contains("`a.w` and others") && said.contains("`b.w` and others"), "{said}");
    }
}
