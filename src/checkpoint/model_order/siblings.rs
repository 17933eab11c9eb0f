//! In which order modules have their parts, as the models of transformers 4.57.3 register them.

use std::collections::HashMap;

/// One kind of module a line: its tensors and parts in order. Written by `scripts/siblings.py`.
const LISTS: &str = include_str!("siblings.txt");

/// The lists by the words in them.
pub(super) struct Siblings {
    /// Per word: lists that have it, and its place there.
    lists_of: HashMap<&'static str, Vec<(usize, usize)>>,
    /// Words of each list.
    lengths: Vec<usize>,
}

impl Siblings {
    /// All lists.
    pub(super) fn new() -> Siblings {
        let mut siblings = Siblings { lists_of: HashMap::new(), lengths: Vec::new() };
        for (list, line) in LISTS.lines().enumerate() {
            let mut length = 0;
            for (place, word) in line.split(' ').enumerate() {
                siblings.lists_of.entry(word).or_default().push((list, place));
                length += 1;
            }
            siblings.lengths.push(length);
        }
        siblings
    }

    /// Whether `a` stands before `b` in a module of these parts: as in the list that has both and
    /// is most like the module.
    pub(super) fn before(&self, a: &str, b: &str, parts: &[&str]) -> Option<bool> {
        let (of_a, of_b) = (self.lists_of.get(a)?, self.lists_of.get(b)?);
        let mut common: HashMap<usize, usize> = HashMap::new();
        for list in parts.iter().filter_map(|part| self.lists_of.get(part)).flatten() {
            *common.entry(list.0).or_default() += 1;
        }
        let likeness = |list: usize| {
            let common = common.get(&list).copied().unwrap_or(0);
            (common, std::cmp::Reverse(self.lengths[list]), std::cmp::Reverse(list))
        };
        let places = of_a.iter().filter_map(|(list, place)| {
            let other = of_b.iter().find(|other| other.0 == *list)?.1;
            Some((*list, *place < other))
        });
        places.max_by_key(|(list, _)| likeness(*list)).map(|(_, before)| before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_that_is_most_like_the_module_decides() {
        let siblings = Siblings::new();
        let llama = ["q_proj", "k_proj", "v_proj", "o_proj"];
        assert_eq!(siblings.before("q_proj", "k_proj", &llama), Some(true));
        let bart = ["k_proj", "v_proj", "q_proj", "out_proj"];
        assert_eq!(siblings.before("q_proj", "k_proj", &bart), Some(false));
        let deberta = ["layer", "rel_embeddings", "LayerNorm"];
        assert_eq!(siblings.before("rel_embeddings", "layer", &deberta), Some(false));
        assert_eq!(siblings.before("rel_embeddings", "LayerNorm", &deberta), Some(true));
        assert_eq!(siblings.before("weight", "bias", &["weight", "bias"]), Some(true));
        assert_eq!(siblings.before("q_proj", "nobody_knows", &llama), None);
    }
}
