//! Orders the parts of a module as the models of transformers 4.57.3 register them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One kind of module per line: its tensors and parts in order. A first word `@PART` limits the
/// line to models with a part of that name. Written by `scripts/siblings.py`.
const LISTS: &str = include_str!("siblings.txt");

/// The lists, indexed by their words.
pub(super) struct Siblings {
    /// Per word, the lists that hold it and its position there.
    lists_of: HashMap<&'static str, Vec<(usize, usize)>>,
    /// Per list, the part that its models must have, if any.
    models: Vec<Option<&'static str>>,
    /// Number of words in each list.
    lengths: Vec<usize>,
}

impl Siblings {
    /// All lists, parsed once.
    pub(super) fn known() -> &'static Siblings {
        static KNOWN: LazyLock<Siblings> = LazyLock::new(Siblings::read);
        &KNOWN
    }

    fn read() -> Siblings {
        let mut siblings =
            Siblings { lists_of: HashMap::new(), models: Vec::new(), lengths: Vec::new() };
        for (list, line) in LISTS.lines().enumerate() {
            let mut words = line.split(' ').peekable();
            let model = words.next_if(|word| word.starts_with('@'));
            siblings.models.push(model.map(|model| &model[1..]));
            let mut length = 0;
            for (place, word) in words.enumerate() {
                siblings.lists_of.entry(word).or_default().push((list, place));
                length += 1;
            }
            siblings.lengths.push(length);
        }
        siblings
    }

    /// Whether `a` comes before `b` in a module of these parts, by the list most like the module
    /// that holds both. `model` is the parts of the whole model.
    pub(super) fn before(&self, a: &str, b: &str, parts: &[&str], model: &[&str]) -> Option<bool> {
        let (of_a, of_b) = (self.lists_of.get(a)?, self.lists_of.get(b)?);
        let mut common: HashMap<usize, usize> = HashMap::new();
        for list in parts.iter().filter_map(|part| self.lists_of.get(part)).flatten() {
            *common.entry(list.0).or_default() += 1;
        }
        let likeness = |list: usize| {
            let common = common.get(&list).copied().unwrap_or(0);
            let own = self.models[list].is_some();
            (common, own, Reverse(self.lengths[list]), Reverse(list))
        };
        let is_for_it = |list: usize| self.models[list].is_none_or(|part| model.contains(&part));
        let places =
            of_a.iter().filter(|(list, _)| is_for_it(*list)).filter_map(|(list, place)| {
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
        let siblings = Siblings::known();
        let llama = ["q_proj", "k_proj", "v_proj", "o_proj"];
        assert_eq!(siblings.before("q_proj", "k_proj", &llama, &[]), Some(true));
        let bart = ["k_proj", "v_proj", "q_proj", "out_proj"];
        assert_eq!(siblings.before("q_proj", "k_proj", &bart, &[]), Some(false));
        let deberta = ["layer", "rel_embeddings", "LayerNorm"];
        assert_eq!(siblings.before("rel_embeddings", "layer", &deberta, &[]), Some(false));
        assert_eq!(siblings.before("rel_embeddings", "LayerNorm", &deberta, &[]), Some(true));
        assert_eq!(siblings.before("weight", "bias", &["weight", "bias"], &[]), Some(true));
        let names = ["position_embeddings", "token_type_embeddings"];
        let parts = ["word_embeddings", "LayerNorm", names[0], names[1]];
        assert_eq!(siblings.before(names[0], names[1], &parts, &["bert", "cls"]), Some(true));
        assert_eq!(siblings.before(names[0], names[1], &parts, &["longformer"]), Some(false));
        assert_eq!(siblings.before("q_proj", "nobody_knows", &llama, &[]), None);
    }
}
