//! The tree of modules that the names of a state dict tell: `a.b.weight` is a tensor of `a.b`, which is a part of `a`.

use std::collections::HashMap;

use crate::checkpoint::tensors::model_order::siblings::Siblings;

/// Levels that are told apart: models have eight. What is deeper is one word.
const MOST_LEVELS: usize = 16;

/// A longer name is of no module.
const MOST_NAME_BYTES: usize = 512;

/// Parts of one kind of module that are looked at; modules have a dozen.
const MOST_PARTS: usize = 64;

/// A module, or a tensor where it is a leaf.
struct Node<'n> {
    parent: usize,
    /// What it has in common with the same part of other layers.
    kind: usize,
    leaf: bool,
    /// Its place in a list of modules.
    number: Option<u64>,
    /// Its name in its parent.
    word: &'n str,
    /// See [`rank`].
    rank: u8,
}

/// The modules of a state dict and, for each tensor, the way to it from the root.
pub(super) struct Modules<'n> {
    nodes: Vec<Node<'n>>,
    paths: Vec<usize>,
    /// Where the path of each tensor starts in `paths`, and the end.
    starts: Vec<usize>,
    /// Per kind, the words of its parts that aren't numbers.
    parts: Vec<Vec<&'n str>>,
    siblings: &'static Siblings,
    /// What the table says of two kinds.
    known: HashMap<(usize, usize), Option<bool>>,
}

impl<'n> Modules<'n> {
    /// The modules that these names tell.
    pub(super) fn of(names: impl Iterator<Item = &'n str>) -> Modules<'n> {
        let root = Node { parent: 0, kind: 0, leaf: false, number: None, word: "", rank: 0 };
        let mut modules = Modules {
            nodes: vec![root],
            paths: Vec::new(),
            starts: vec![0],
            parts: vec![Vec::new()],
            siblings: Siblings::known(),
            known: HashMap::new(),
        };
        let mut nodes: HashMap<(usize, &str, bool), usize> = HashMap::new();
        let mut kinds: HashMap<(usize, &str, bool), usize> = HashMap::new();
        for name in names {
            let levels = if name.len() > MOST_NAME_BYTES { 1 } else { MOST_LEVELS };
            let mut node = 0;
            let mut words = name.splitn(levels, '.').peekable();
            while let Some(word) = words.next() {
                let leaf = words.peek().is_none();
                node = *nodes
                    .entry((node, word, leaf))
                    .or_insert_with(|| modules.add(node, word, leaf, &mut kinds));
                modules.paths.push(node);
            }
            modules.starts.push(modules.paths.len());
        }
        modules
    }

    fn add(
        &mut self,
        parent: usize,
        word: &'n str,
        leaf: bool,
        kinds: &mut HashMap<(usize, &'n str, bool), usize>,
    ) -> usize {
        let number = word.parse().ok();
        let common = if number.is_some() { "" } else { word };
        let above = self.nodes[parent].kind;
        let kind = *kinds.entry((above, common, leaf)).or_insert_with(|| {
            if number.is_none() && self.parts[above].len() < MOST_PARTS {
                self.parts[above].push(word);
            }
            self.parts.push(Vec::new());
            self.parts.len() - 1
        });
        self.nodes.push(Node { parent, kind, leaf, number, word, rank: rank(word) });
        self.nodes.len() - 1
    }

    /// The nodes from below the root to a tensor.
    pub(super) fn path(&self, tensor: usize) -> &[usize] {
        &self.paths[self.starts[tensor]..self.starts[tensor + 1]]
    }

    /// The two siblings at which the ways to two tensors part; `None` where the names are the same.
    pub(super) fn parting(&self, a: usize, b: usize) -> Option<(usize, usize)> {
        let ways = self.path(a).iter().zip(self.path(b));
        ways.map(|(a, b)| (*a, *b)).find(|(a, b)| a != b)
    }

    /// The module that a node is a part of.
    pub(super) fn parent(&self, node: usize) -> usize {
        self.nodes[node].parent
    }

    /// The kind of a node: the same for the same part of each layer.
    pub(super) fn kind(&self, node: usize) -> usize {
        self.nodes[node].kind
    }

    /// Whether `a` stands before its sibling `b`, where torch decides that: tensors of a module stand
    /// before its parts, and lists count.
    pub(super) fn by_rule(&self, a: usize, b: usize) -> Option<bool> {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        if a.leaf != b.leaf {
            return Some(a.leaf);
        }
        Some(a.number? < b.number?)
    }

    /// Whether `a` stands before its sibling `b` in the modules that transformers has.
    pub(super) fn by_table(&mut self, a: usize, b: usize) -> Option<bool> {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        let parts = &self.parts[self.nodes[a.parent].kind];
        let (siblings, model) = (self.siblings, &self.parts[0]);
        *self
            .known
            .entry((a.kind, b.kind))
            .or_insert_with(|| siblings.before(a.word, b.word, parts, model))
    }

    /// Whether `a` stands before its sibling `b`, by what such words mostly name; `None` where they
    /// tell nothing.
    pub(super) fn by_words(&self, a: usize, b: usize) -> Option<bool> {
        let (a, b) = (self.nodes[a].rank, self.nodes[b].rank);
        (a != b).then_some(a < b)
    }
}

/// Embeddings and weights come first, norms and biases behind, heads last.
fn rank(word: &str) -> u8 {
    let has = |parts: &[&str]| parts.iter().any(|part| word.contains(part));
    match word {
        _ if has(&["head", "embed_out", "classifier", "score", "lm_loss", "output_projection"]) => {
            4
        }
        "output" | "cls" => 4,
        _ if has(&["emb", "wte", "wpe", "shared"]) || word == "weight" => 0,
        _ if has(&["bias"]) => 3,
        _ if has(&["norm", "Norm"]) || word.starts_with("ln") => 2,
        _ => 1,
    }
}
