//! Builds the tree of modules behind the names of a state dict: `a.b.weight` is a tensor of `a.b`,
//! which is a part of `a`.

use std::collections::HashMap;

use crate::checkpoint::tensors::model_order::siblings::Siblings;

/// Levels of the tree; models have eight. What is deeper counts as one word.
const MOST_LEVELS: usize = 16;

/// A name longer than this is not split into modules.
const MOST_NAME_BYTES: usize = 512;

/// Parts that are remembered of one kind of module; modules have a dozen.
const MOST_PARTS: usize = 64;

/// A module, or a tensor where it is a leaf.
struct Node<'n> {
    parent: usize,
    /// The same for the same part of each layer.
    kind: usize,
    leaf: bool,
    /// Its index, where its parent is a list of modules.
    number: Option<u64>,
    /// Its name within its parent.
    word: &'n str,
    /// See [`rank`].
    rank: u8,
}

/// The modules of a state dict and, for each tensor, its path from the root.
pub(super) struct Modules<'n> {
    nodes: Vec<Node<'n>>,
    paths: Vec<usize>,
    /// Start of each tensor's path in `paths`, and the end of the last.
    starts: Vec<usize>,
    /// Per kind, the names of its parts that are not numbers.
    parts: Vec<Vec<&'n str>>,
    siblings: &'static Siblings,
    /// Answers of the table for two kinds.
    known: HashMap<(usize, usize), Option<bool>>,
}

impl<'n> Modules<'n> {
    /// Builds the tree of these names.
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

    /// The two siblings at which the paths of two tensors part; `None` where the names are equal.
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

    /// Whether a node is a tensor, its number in a list, how its word mostly ranks, and the word.
    pub(super) fn clues(&self, node: usize) -> (bool, Option<u64>, u8, &'n str) {
        let Node { leaf, number, rank, word, .. } = self.nodes[node];
        (leaf, number, rank, word)
    }

    /// Whether `a` comes before its sibling `b` by torch's rules: a module's tensors come before
    /// its parts, and lists are in order of their numbers.
    pub(super) fn by_rule(&self, a: usize, b: usize) -> Option<bool> {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        if a.leaf != b.leaf {
            return Some(a.leaf);
        }
        Some(a.number? < b.number?)
    }

    /// Whether `a` comes before its sibling `b` in the modules of transformers.
    pub(super) fn by_table(&mut self, a: usize, b: usize) -> Option<bool> {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        let parts = &self.parts[self.nodes[a.parent].kind];
        let (siblings, model) = (self.siblings, &self.parts[0]);
        *self
            .known
            .entry((a.kind, b.kind))
            .or_insert_with(|| siblings.before(a.word, b.word, parts, model))
    }

    /// Whether `a` comes before its sibling `b`, guessed from their names; `None` where those tell
    /// nothing.
    pub(super) fn by_words(&self, a: usize, b: usize) -> Option<bool> {
        let (a, b) = (self.nodes[a].rank, self.nodes[b].rank);
        (a != b).then_some(a < b)
    }
}

/// Usual order by name: embeddings and weights first, norms and biases later, heads last.
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
