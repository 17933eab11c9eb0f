//! Which models that fit each other give one row to different words.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::checkpoint::{Checkpoint, Vocabulary};
use crate::merge::vocab::comparison::{Comparison, Relation};
use crate::merge::vocab::rows::{Vocab, rows};

/// Different vocabularies that are compared; a collection with more is told nothing of the rest.
const MOST_KINDS: usize = 100;

/// The pairs of each group whose vocabularies give one row to different words, as places in `models`.
/// `read` gives the words of a model; each is read once, and models with the same words are one.
pub fn clashes(
    models: &[&Checkpoint],
    groups: &[Vec<usize>],
    read: &dyn Fn(&Checkpoint) -> Vocabulary,
) -> Vec<(usize, usize)> {
    let mut kinds: Vec<(u64, Vocabulary)> = Vec::new();
    let mut of_hash: HashMap<u64, usize> = HashMap::new();
    let mut kind_of: HashMap<usize, usize> = HashMap::new();
    for place in groups.iter().flatten() {
        if kind_of.contains_key(place) {
            continue;
        }
        let Some((model, n_rows)) =
            models.get(*place).and_then(|model| Some((*model, rows(model)?)))
        else {
            continue;
        };
        let vocabulary = read(model);
        if vocabulary.is_empty() || kinds.len() >= MOST_KINDS {
            continue;
        }
        let mut hasher = DefaultHasher::new();
        (n_rows, vocabulary.file(), vocabulary.spelling().to_string()).hash(&mut hasher);
        vocabulary.words().for_each(|word| word.hash(&mut hasher));
        let kind = *of_hash.entry(hasher.finish()).or_insert_with(|| {
            kinds.push((n_rows, vocabulary));
            kinds.len() - 1
        });
        kind_of.insert(*place, kind);
    }
    let mut known: HashMap<(usize, usize), bool> = HashMap::new();
    let mut clash = |a: usize, b: usize| {
        *known.entry((a.min(b), a.max(b))).or_insert_with(|| {
            let (Some((primary, ours)), Some((secondary, theirs))) = (kinds.get(a), kinds.get(b))
            else {
                return false;
            };
            let vocab = Vocab { primary: *primary, secondary: *secondary };
            a != b && Comparison::of(ours, theirs, vocab).relation == Relation::Different
        })
    };
    let mut pairs = Vec::new();
    for group in groups {
        for (at, a) in group.iter().enumerate() {
            for b in group.iter().skip(at + 1) {
                if let (Some(ours), Some(theirs)) = (kind_of.get(a), kind_of.get(b))
                    && clash(*ours, *theirs)
                    && !pairs.contains(&(*a, *b))
                {
                    pairs.push((*a, *b));
                }
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::llama;

    #[test]
    fn pairs_of_a_group_that_clash_are_named_once() {
        let model = |words: &[(u64, &str)]| llama(8).words(words).open();
        let (one, other) = ([(0, "a"), (1, "b")], [(0, "a"), (1, "c")]);
        let models = [model(&one), model(&other), model(&one), model(&[])];
        let models: Vec<&Checkpoint> = models.iter().collect();
        let read = |model: &Checkpoint| model.vocabulary.clone();
        let groups = [vec![0, 1, 2, 3], vec![1, 2]];
        assert_eq!(clashes(&models, &groups, &read), [(0, 1), (1, 2)]);
        assert_eq!(clashes(&models, &[vec![0, 2, 3]], &read), []);
    }
}
