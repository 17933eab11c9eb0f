//! Decides which tensor names in the child share one storage, and which parent tensors that storage
//! is merged from.

use std::collections::HashMap;

use crate::checkpoint::{Checkpoint, Inventory, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::names::buffers::is_buffer;
use crate::merge::names::embeddings::is_embedding_name;
use crate::merge::pair::Pair;
use crate::merge::ties::output_heads::differing_heads;
use crate::merge::ties::parents::Ties;
use crate::merge::warning::Warning;
use crate::tensor::escape;

/// Names of the child that are one tensor, by places in the list of pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Per pair, the first pair of the same tensor: itself where it is the first or the only one.
    pub(crate) first: Vec<usize>,
    /// Per pair that is a first, the pair whose tensors are merged.
    pub(crate) maker: Vec<usize>,
}

/// Places of the first pairs, by what their tensors are in the parents.
#[derive(Default)]
struct Firsts {
    ours: HashMap<usize, usize>,
    ours_perhaps: HashMap<usize, usize>,
    theirs: HashMap<usize, usize>,
}

impl Ties {
    /// Decides which names of the child are one tensor: those that are one in the primary, and those
    /// that one parent stores apart though nothing is lost where they are one.
    ///
    /// # Errors
    /// [`Kind::Data`] where they are several in the secondary, so that values would be lost; with `force`
    /// a warning.
    pub(crate) fn share(
        &self,
        primary: &Checkpoint,
        secondary: &Checkpoint,
        pairs: &[Pair],
        force: bool,
        warnings: &mut Vec<Warning>,
    ) -> Result<Share> {
        let mut share =
            Share { first: Vec::with_capacity(pairs.len()), maker: (0..pairs.len()).collect() };
        let mut firsts = Firsts::default();
        for (place, pair) in pairs.iter().enumerate() {
            let first = self.first_of(place, pair, pairs, &share, &mut firsts);
            share.first.push(first);
            if first == place {
                continue;
            }
            let (Some(maker), Some(b)) = (share.maker.get_mut(first), pair.secondary) else {
                continue;
            };
            let Some(made) = pairs.get(*maker) else { continue };
            match made.secondary {
                Some(earlier)
                    if pair.primary.is_none()
                        || self.are_one(earlier, b)
                        || secondary.inventory.equal(earlier, b)
                        || !has_values(&secondary.inventory, b) => {}
                Some(earlier) => {
                    let [first, other] = [earlier, b].map(|at| secondary.inventory.tensors.get(at));
                    let (Some(first), Some(other)) = (first, other) else { continue };
                    // The head's values go, not the embedding's.
                    let (kept, lost) =
                        if is_embedding_name(&other.name) && !is_embedding_name(&first.name) {
                            *maker = place;
                            (other, first)
                        } else {
                            (first, other)
                        };
                    if !force {
                        return Err(untied_error(primary, secondary, kept, lost));
                    }
                    let [first, other] = [kept, lost].map(|tensor| tensor.name.clone());
                    warnings.push(Warning::Untied { first, other });
                }
                None => *maker = place,
            }
        }
        self.note_tied_in_secondary(secondary, pairs, &share, warnings);
        for (parent, checkpoint) in [("primary", primary), ("secondary", secondary)] {
            let differing = differing_heads(checkpoint).into_iter();
            warnings.extend(differing.map(|(head, embedding)| Warning::HeadDiffers {
                parent,
                head,
                embedding,
            }));
        }
        Ok(share)
    }

    fn are_one(&self, a: usize, b: usize) -> bool {
        self.theirs.first(a) == self.theirs.first(b)
    }

    /// The first pair of the same tensor, or `place` itself.
    fn first_of(
        &self,
        place: usize,
        pair: &Pair,
        pairs: &[Pair],
        share: &Share,
        firsts: &mut Firsts,
    ) -> usize {
        let Some(a) = pair.primary else {
            let b = pair.secondary.map(|b| self.theirs.first(b));
            return b.map_or(place, |b| *firsts.theirs.entry(b).or_insert(place));
        };
        let perhaps = || {
            let first = *firsts.ours_perhaps.get(&self.ours_perhaps.first(a))?;
            let made = pairs.get(*share.maker.get(first)?)?;
            match (made.secondary, pair.secondary) {
                (Some(earlier), Some(b)) => self.are_one(earlier, b),
                _ => true,
            }
            .then_some(first)
        };
        let first = firsts.ours.get(&self.ours.first(a)).copied().or_else(perhaps).unwrap_or(place);
        firsts.ours.entry(self.ours.first(a)).or_insert(first);
        firsts.ours_perhaps.entry(self.ours_perhaps.first(a)).or_insert(first);
        if let Some(b) = pair.secondary {
            firsts.theirs.entry(self.theirs.first(b)).or_insert(first);
        }
        first
    }

    /// Says which tensors of the child are merged with one of the secondary's.
    fn note_tied_in_secondary(
        &self,
        secondary: &Checkpoint,
        pairs: &[Pair],
        share: &Share,
        warnings: &mut Vec<Warning>,
    ) {
        let mut makers: Vec<(usize, &Pair)> = Vec::new();
        for (place, first) in share.first.iter().enumerate().filter(|(at, first)| at == *first) {
            let Some(made) = share.maker.get(place).and_then(|maker| pairs.get(*maker)) else {
                continue;
            };
            if let (Some(_), Some(b)) = (made.primary, made.secondary)
                && let Some(pair) = pairs.get(*first)
            {
                makers.push((self.theirs.first(b), pair));
            }
        }
        let mut seen: HashMap<usize, usize> = HashMap::new();
        let mut names: Vec<(usize, Vec<String>)> = Vec::new();
        for (theirs, pair) in makers {
            let place = *seen.entry(theirs).or_insert_with(|| {
                names.push((theirs, Vec::new()));
                names.len().saturating_sub(1)
            });
            if let Some((_, names)) = names.get_mut(place) {
                names.push(pair.name.clone());
            }
        }
        for (theirs, names) in names.into_iter().filter(|(_, names)| names.len() > 1) {
            let Some(tensor) = secondary.inventory.tensors.get(theirs) else { continue };
            if tensor.layout.shape.len() < 2 || !has_values(&secondary.inventory, theirs) {
                continue;
            }
            warnings.push(Warning::TiedInSecondary { one: tensor.name.clone(), names });
        }
    }
}

/// Whether a tensor's values go into the child: buffers and integers are the primary's.
fn has_values(inventory: &Inventory, position: usize) -> bool {
    inventory.tensors.get(position).is_some_and(|tensor| {
        tensor.dtype.is_floating() && !is_buffer(&tensor.name, tensor.dtype, &tensor.layout.shape)
    })
}

/// Two tensors of different values in the secondary that are tied in the primary.
fn untied_error(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    kept: &TensorEntry,
    lost: &TensorEntry,
) -> Error {
    Error::new(Kind::Data, "two tensors of the secondary are one in the primary")
        .file(&secondary.path)
        .tensor(&lost.name)
        .expected(
            format!("the values of `{}`, as in `{}`", escape(&kept.name), primary.path.display()),
            "others, which the child has no place for",
        )
        .with_hint(format!(
            "make this parent the primary (with t turned round), whose child has both; or give \
             --force-config: the child has one tensor, and the secondary's `{}` is left out",
            escape(&lost.name)
        ))
}

/// A head that only the secondary has, while the primary ties its own to the embedding.
pub(crate) fn lost_head_error(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    head: &TensorEntry,
) -> Error {
    Error::new(Kind::Data, "the output head is the embedding in the primary only")
        .file(&secondary.path)
        .tensor(&head.name)
        .expected(
            format!("the embedding's values, as config.json of `{}` says", primary.path.display()),
            "others, which the child has no place for",
        )
        .with_hint(format!(
            "make this parent the primary (with t turned round), whose child has both; or give \
             --force-config: the child's head is its embedding, and the secondary's `{}` is left out",
            escape(&head.name)
        ))
}
