//! Compares the sizes of models: two that are too far apart don't fit, and no plan is made of them.

use std::collections::HashSet;

use crate::checkpoint::Checkpoint;
use crate::merge::names::buffers::is_buffer;
use crate::merge::names::embeddings::is_vocab_name;
use crate::merge::names::heads::is_head;
use crate::merge::vocab::rows::rows;

/// How large a model is, so that no plan is made of two that can't fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size {
    /// Elements that a partner must have as well, but for a tenth of [`Size::most`].
    pub(crate) least: u64,
    /// Those, and all that may differ in size or lack a partner: embeddings and heads.
    pub(crate) most: u64,
}

impl Size {
    /// Counts the elements of a model's tensors.
    pub(crate) fn of(model: &Checkpoint) -> Size {
        let rows = rows(model);
        let mut seen = HashSet::new();
        let mut size = Size { least: 0, most: 0 };
        for tensor in &model.inventory.tensors {
            let shape = &tensor.layout.shape;
            if is_buffer(&tensor.name, tensor.dtype, shape) {
                continue;
            }
            let numel = tensor.layout.numel().unwrap_or(0);
            size.most = size.most.saturating_add(numel);
            // What is tied here may be several tensors in the other.
            let first = seen.insert((tensor.storage, tensor.dtype, &tensor.layout));
            let extended = shape.iter().any(|size| Some(*size) == rows);
            let aside = || is_vocab_name(&tensor.name) || tensor.name.split('.').any(is_head);
            if first && !extended && !aside() {
                size.least = size.least.saturating_add(numel);
            }
        }
        size
    }

    /// Whether a model that is larger by [`Size::least`] may have a partner for all but a tenth.
    pub(crate) fn may_fit(self, larger: Size) -> bool {
        larger.least <= self.most.saturating_add(self.most / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::Headers;

    #[test]
    fn a_partner_needs_the_body_and_may_lack_all_that_counts_as_vocabulary_or_head() {
        let body = || Headers::new().f16("a.w", &[3, 5]);
        for (headers, least, most) in [
            (body(), 15, 15),
            (body().f16("b.w", &[7]).tied("c.w", "b.w"), 22, 29),
            (body().f16("h.0.attn.bias", &[1, 1, 4, 4]), 15, 15),
            // A tensor of the vocabulary by its name, by its rows, and heads wherever they stand.
            (body().f16("m.embed_tokens.weight", &[9, 2]), 15, 33),
            (body().f16("m.embed_tokens.weight", &[9, 2]).f16("x.bias", &[1, 9]), 15, 42),
            (body().f16("decoder.weight", &[8]), 15, 23),
            (body().f16("m.score.weight", &[8]), 15, 23),
        ] {
            assert_eq!(Size::of(&headers.open()), Size { least, most });
        }
    }

    #[test]
    fn a_tenth_of_the_smaller_may_be_without_a_partner() {
        let smaller = Size { least: 50, most: 100 };
        for (least, fits) in [(50, true), (110, true), (111, false), (u64::MAX, false)] {
            let larger = Size { least, most: u64::MAX };
            assert_eq!(smaller.may_fit(larger), fits, "{least}");
            assert!(larger.may_fit(larger));
        }
    }
}
