//! `Ties`: what is tied in both parents, and what that means for a tensor that only one of them
//! stores.

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::merge::names::embeddings::{is_embedding_name, is_head_matrix_name};
use crate::merge::ties::output_heads::{is_output_head, says_tied};
use crate::merge::ties::same::Same;

/// What is known of tied tensors in both parents.
#[derive(Debug)]
pub(crate) struct Ties {
    /// The primary's tensors that are one in the child: stored as one, or of equal bytes where
    /// config.json says that they are tied.
    pub(super) ours: Same,
    /// The primary's tensors that are one in the child unless they are several in the secondary: of
    /// equal bytes, where config.json does not say that they are untied.
    pub(super) ours_perhaps: Same,
    /// The secondary's tensors of equal values, so that nothing is lost where the child has one.
    pub(super) theirs: Same,
    /// `tie_word_embeddings` of the primary, where config.json has it.
    ours_said: Option<bool>,
    /// The secondary's.
    theirs_said: Option<bool>,
}

impl Ties {
    /// Reads no data: where headers don't tell whether a head is the embedding, it is so only if
    /// [`Checkpoint::compare`] found it for the pairs of [`unsure`](crate::merge::unsure).
    pub(crate) fn of(primary: &Checkpoint, secondary: &Checkpoint) -> Ties {
        let (a, b) = (&primary.inventory, &secondary.inventory);
        let ours_said = says_tied(primary);
        let by = |bytes: bool| if bytes { Same::equal(a, false) } else { Same::stored(a) };
        Ties {
            ours: by(ours_said == Some(true)),
            ours_perhaps: by(ours_said != Some(false)),
            theirs: Same::equal(b, true),
            ours_said,
            theirs_said: says_tied(secondary),
        }
    }

    /// Whether a tensor of the primary is another name of one that has a partner.
    pub(crate) fn is_ours_elsewhere(
        &self,
        position: usize,
        has_partner: impl Fn(usize) -> bool,
    ) -> bool {
        self.ours_perhaps
            .all(position)
            .iter()
            .any(|other| *other != position && has_partner(*other))
    }

    /// The same of the secondary.
    pub(crate) fn is_theirs_elsewhere(
        &self,
        position: usize,
        has_partner: impl Fn(usize) -> bool,
    ) -> bool {
        self.theirs.all(position).iter().any(|other| *other != position && has_partner(*other))
    }

    /// The secondary's embedding, as the partner of a head of the primary that the secondary does not
    /// store because its config.json ties it to the embedding.
    pub(crate) fn stand_in(&self, tensor: &TensorEntry, secondary: &Checkpoint) -> Option<usize> {
        let is_head = is_head_matrix_name(&tensor.name) || is_embedding_name(&tensor.name);
        if self.theirs_said != Some(true) || !is_head || tensor.layout.shape.len() != 2 {
            return None;
        }
        let tensors = secondary.inventory.tensors.iter().enumerate();
        let embeddings = tensors.filter(|(_, other)| {
            is_embedding_name(&other.name)
                && other.dtype.is_floating()
                && other.layout.shape.len() == 2
                && other.layout.shape.get(1) == tensor.layout.shape.get(1)
        });
        let mut found: Option<(usize, bool)> = None;
        for (position, other) in embeddings {
            // Of two vocabularies, a head predicts the decoder's.
            let decodes = other.name.split('.').any(|part| part == "decoder");
            match found {
                Some((first, _)) if self.theirs.first(first) == self.theirs.first(position) => {}
                Some((_, true)) => {}
                Some(_) if !decodes => return None,
                _ => found = Some((position, decodes)),
            }
        }
        found.map(|found| found.0)
    }

    /// Whether a head that only the secondary stores has values of its own, which are lost since the
    /// primary's head is its embedding.
    pub(crate) fn is_lost(&self, position: usize, secondary: &Checkpoint) -> bool {
        let Some(tensor) = secondary.inventory.tensors.get(position) else { return false };
        self.ours_said == Some(true)
            && is_output_head(tensor)
            && !self.theirs.is_embedding_too(position, &secondary.inventory)
    }
}
