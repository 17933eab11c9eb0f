//! Refuses parents as different architectures where too many of their tensors lack a partner.

use std::collections::HashSet;

use crate::checkpoint::{Checkpoint, Inventory, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::names::buffers::is_buffer;
use crate::merge::names::heads::is_head;
use crate::merge::names::matching::Names;
use crate::tensor::{escape, listed};

/// Of so many elements of the smaller parent, one may lack a partner.
const TIMES: u128 = 10;

/// Names shown of each parent.
const SHOWN: usize = 3;

/// The tensors of one parent that lack a partner.
struct Alone<'a> {
    names: Vec<&'a str>,
    /// Their elements.
    elements: u128,
    /// Elements of all its tensors but known buffers and heads.
    of: u128,
}

/// Refuses parents whose tensors without a partner, of both sides together, have more than a tenth of
/// the elements of the smaller one, known buffers and heads aside. So a parent with much that the
/// other lacks is refused whichever is the primary. `is_ours_paired` and `is_theirs_paired` take
/// positions in the inventories.
///
/// # Errors
/// [`Kind::Data`] with the first names of each parent.
pub(crate) fn check(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    names: &Names,
    is_ours_paired: impl Fn(usize) -> bool,
    is_theirs_paired: impl Fn(usize) -> bool,
) -> Result<()> {
    let ours = Alone::of(&primary.inventory, &names.child, is_ours_paired);
    let theirs = Alone::of(&secondary.inventory, &names.theirs, is_theirs_paired);
    let (alone, least) = (ours.elements + theirs.elements, ours.of.min(theirs.of));
    if alone * TIMES <= least {
        return Ok(());
    }
    let percent = (alone * 100 / least.max(1)).min(999);
    Err(Error::new(Kind::Data, "too many tensors have no partner in the other parent")
        .file(&secondary.path)
        .expected(
            format!(
                "the tensors of `{}`, but for a tenth of their elements, buffers and heads",
                primary.path.display()
            ),
            format!(
                "{percent} % of them alone: only in the primary {}; only in the secondary {}",
                ours.text(),
                theirs.text()
            ),
        )
        .with_hint(
            "are these two of one architecture? if so, rename the tensors of one of them; \
             --missing primary merges what pairs and copies the primary's others, --missing union \
             takes the secondary's others, too",
        ))
}

impl<'a> Alone<'a> {
    /// Each view of a storage counts once, and not where it has a partner under another name.
    fn of(
        inventory: &'a Inventory,
        names: &[String],
        is_paired: impl Fn(usize) -> bool,
    ) -> Alone<'a> {
        let mut alone = Alone { names: Vec::new(), elements: 0, of: 0 };
        let mut seen = HashSet::new();
        let weights = |paired: bool| {
            let counts = |(place, (tensor, name)): &(usize, (&TensorEntry, &String))| {
                let shape = &tensor.layout.shape;
                is_paired(*place) == paired
                    && !is_buffer(name, tensor.dtype, shape)
                    && !is_head(name)
            };
            let tensors = inventory.tensors.iter().zip(names).enumerate();
            tensors.filter(counts).map(|(_, (tensor, _))| tensor).collect::<Vec<_>>()
        };
        let elements = |tensor: &TensorEntry| u128::from(tensor.layout.numel().unwrap_or(0));
        let paired = weights(true);
        for tensor in paired {
            if seen.insert((tensor.storage, tensor.dtype, &tensor.layout)) {
                alone.of += elements(tensor);
            }
        }
        for tensor in weights(false) {
            if seen.insert((tensor.storage, tensor.dtype, &tensor.layout)) {
                alone.of += elements(tensor);
                alone.elements += elements(tensor);
                alone.names.push(&tensor.name);
            }
        }
        alone
    }

    fn text(&self) -> String {
        if self.names.is_empty() {
            return "none".to_owned();
        }
        listed(self.names.iter().map(|name| format!("`{}`", escape(name))), SHOWN)
    }
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::Checkpoint;
    use crate::merge::headers::Headers;
    use crate::merge::options::{MergeOptions, Missing};
    use crate::merge::plan::merge_plan::plan;

    fn takes(a: &Checkpoint, b: &Checkpoint) -> bool {
        plan(a, b, &MergeOptions::default()).is_ok()
    }

    fn body() -> Headers {
        Headers::new().f16("a.w", &[10, 10])
    }

    #[test]
    fn a_tenth_of_the_smaller_parent_may_be_alone_on_both_sides_together() {
        // What is alone in the smaller one counts to it: 4 + 6 of 100 + 4, 5 + 6 of 100 + 5.
        for (ours, theirs, fits) in [(0, 10, true), (0, 11, false), (4, 6, true), (5, 6, false)] {
            let a = if ours == 0 { body() } else { body().f16("b.w", &[ours]) };
            let (a, b) = (a.open(), body().f16("c.w", &[theirs]).open());
            assert_eq!((takes(&a, &b), takes(&b, &a)), (fits, fits), "{ours} {theirs}");
        }
    }

    #[test]
    fn heads_buffers_and_names_of_one_tensor_are_aside() {
        let full = body()
            .f16("lm_head.weight", &[90])
            .f16("cls.predictions.decoder.weight", &[90])
            .f16("h.0.attn.bias", &[1, 1, 9, 9])
            .f16("bn.running_var", &[90])
            .tied("again.w", "a.w")
            .open();
        assert!(takes(&full, &body().open()) && takes(&body().open(), &full));
        let other = body().f16("h.0.attn.bias", &[90]).open();
        assert!(!takes(&other, &body().open()) && !takes(&body().open(), &other));
    }

    #[test]
    fn the_user_may_decide_otherwise() {
        let (a, b) = (body().f16("b.w", &[90]).open(), body().f16("c.w", &[90]).open());
        for (missing, tensors) in [(Missing::Primary, 2), (Missing::Union, 3)] {
            let options = MergeOptions { missing: Some(missing), ..MergeOptions::default() };
            assert_eq!(plan(&a, &b, &options).unwrap().tensors.len(), tensors);
        }
        let options = MergeOptions { missing: Some(Missing::Error), ..MergeOptions::default() };
        assert!(plan(&a, &b, &options).is_err());
    }

    #[test]
    fn the_refusal_names_the_first_tensors_of_either_side() {
        for (others, said) in [
            (
                &["b", "c"][..],
                "18 % of them alone: only in the primary none; only in the secondary `b`, `c`",
            ),
            (
                &["b", "c", "d"],
                "27 % of them alone: only in the primary none; only in the secondary `b`, `c`, `d`",
            ),
            (
                &["b", "c", "d", "e", "f"],
                "45 % of them alone: only in the primary none; only in the secondary `b`, `c`, `d`, 2 more",
            ),
        ] {
            let more = others.iter().fold(body(), |h, name| h.f16(name, &[9]));
            let error = plan(&body().open(), &more.open(), &MergeOptions::default()).unwrap_err();
            let text = error.to_string();
            assert!(text.ends_with(said), "{text}");
            let hint = error.hint().unwrap();
            assert!(
                hint.contains("--missing primary") && hint.contains("--missing union"),
                "{hint}"
            );
        }
    }
}
