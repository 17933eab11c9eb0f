//! Finds the state dict among the dicts of a checkpoint: training programs save it beside much
//! else.
//!
//! Every dict that holds a tensor is a candidate, except what is known not to be weights: the states of
//! optimizers and of random number generators. The largest is taken if it is the largest by far, ten
//! times the next one; where two are of similar size (weights and their average), the file is refused
//! and the user chooses: `FILE::KEY`.

use crate::format::error::{FormatError, Rule};
use crate::format::torch::pickle::budget::Room;
use crate::format::torch::pickle::value::{Pickle, Ref};
use crate::format::torch::tensor_bytes::tensor_bytes;
use crate::tensor::{counted, escape, escape_up_to, human_bytes, listed};

/// Keys under which training programs keep a state dict, perhaps with other values in it.
const KNOWN: [&str; 14] = [
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "state",
    "model_state",
    "model_dict",
    "weights",
    "model_weights",
    "net",
    "network",
    "net_state_dict",
    "params",
    "parameters",
];

/// What optimizers keep for each parameter (torch.optim, apex, DeepSpeed).
const MOMENTS: [&str; 6] =
    ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "param_groups"];

/// Further keys of such states, compared whole: `opt_model` is a model.
const ASIDE: [&str; 6] =
    ["opt", "opts", "opt_state", "opt_state_dict", "random_state", "random_states"];

/// How many times as large as the next candidate the state dict is: "by far".
const BY_FAR: u64 = 10;

/// Most entries that a message names.
const MOST_NAMED: usize = 6;

/// The dict that is the state dict.
pub(super) struct Chosen<'p> {
    /// Its pairs.
    pub(super) pairs: &'p [(Ref, Ref)],
    /// The path to it: the top dict first, itself last, each with its key in the dict before.
    pub(super) path: Vec<(Ref, &'p str)>,
}

impl Chosen<'_> {
    /// Its key; `None` for the top level.
    pub(super) fn nest(&self) -> Option<String> {
        let keys: Vec<&str> = self.path.iter().skip(1).map(|step| step.1).collect();
        if keys.is_empty() { None } else { Some(keys.join(".")) }
    }

    /// Keys beside it, on every level, in order.
    pub(super) fn beside(
        &self,
        pickle: &Pickle<'_>,
        room: &mut Room,
    ) -> Result<Vec<String>, FormatError> {
        let mut beside = Vec::new();
        let mut above = String::new();
        for pair in self.path.windows(2) {
            let [(dict, _), (next, next_key)] = pair else { continue };
            for (key, value) in pickle.dict(*dict).unwrap_or_default() {
                if value == next && pickle.text(*key) == Some(*next_key) {
                    continue;
                }
                let key = key_in_words(pickle, *key);
                room.take(size_of::<String>() + above.len() + key.len())?;
                beside.push(format!("{above}{key}"));
            }
            above = format!("{above}{next_key}.");
        }
        Ok(beside)
    }
}

/// A key's text, or a description of a key that is not text.
pub(super) fn key_in_words(pickle: &Pickle<'_>, key: Ref) -> String {
    match pickle.text(key) {
        Some(name) => name.to_owned(),
        None => pickle.describe(key).into_owned(),
    }
}

/// A dict that was found, and where.
struct Node<'p> {
    dict: Ref,
    key: &'p str,
    /// The node of the dict that holds it; the top has none.
    above: Option<usize>,
    /// Tensors in it.
    tensors: usize,
    /// Other values in it.
    others: usize,
    /// Bytes of its tensors of more than one element.
    bytes: u64,
}

/// Finds the state dict, below `key` where the user names one.
///
/// # Errors
/// [`Rule::NoStateDict`] where no dict of tensors is found, [`Rule::SeveralStateDicts`] where two of
/// like size are, [`Rule::NoEntry`] where `key` leads to none.
pub(super) fn choose<'p>(
    pickle: &'p Pickle<'_>,
    key: Option<&str>,
    room: &mut Room,
) -> Result<Chosen<'p>, FormatError> {
    let top = pickle.root();
    let Some(pairs) = pickle.dict(top) else {
        let found = pickle.describe(top);
        return Err(FormatError::new(Rule::NoStateDict, "pickle", "a dict of tensors", found)
            .hint("save the model's state_dict() with torch.save"));
    };
    let mut path = vec![(top, "")];
    match key {
        // Old sharded savers wrote shards without tensors, so an empty dict is a state dict.
        None if pairs.is_empty() => return Ok(Chosen { pairs, path }),
        None => {}
        Some("") => return Ok(Chosen { pairs, path }),
        Some(key) => path.extend(follow(pickle, top, key).ok_or_else(|| no_entry(pickle, key))?),
    }
    let (start, _) = path.last().copied().unwrap_or((top, ""));
    let nodes = reachable(pickle, start, room)?;
    let position = largest(pickle, &nodes).map_err(|error| match key {
        Some(key) if error.rule == Rule::NoStateDict => no_entry(pickle, key),
        _ => error,
    })?;
    let mut below = Vec::new();
    let mut next = Some(position);
    while let Some(node) = next.and_then(|at| nodes.get(at)) {
        below.push((node.dict, node.key));
        next = node.above;
    }
    below.pop();
    path.extend(below.into_iter().rev());
    let (dict, _) = path.last().copied().unwrap_or((top, ""));
    Ok(Chosen { pairs: pickle.dict(dict).unwrap_or_default(), path })
}

/// The dicts below `top` to which a key leads, with their own keys; see
/// [`ReadOptions::key`](super::collect::ReadOptions::key).
fn follow<'p>(pickle: &'p Pickle<'_>, top: Ref, key: &str) -> Option<Vec<(Ref, &'p str)>> {
    let mut path = Vec::new();
    let (mut dict, mut rest) = (top, key);
    loop {
        let fits = |(name, value): &(Ref, Ref)| {
            let name = pickle.text(*name)?;
            let behind = rest.strip_prefix(name)?;
            pickle.dict(*value).filter(|_| behind.is_empty() || behind.starts_with('.'))?;
            Some((name, *value))
        };
        let pairs = pickle.dict(dict)?.iter().filter_map(fits);
        let (name, value) = pairs.max_by_key(|(name, _)| name.len())?;
        path.push((value, name));
        match rest.get(name.len()..)?.strip_prefix('.') {
            None => return Some(path),
            Some(behind) => (dict, rest) = (value, behind),
        }
    }
}

/// Every dict that can be reached from `start` by text keys, each once, except what is known not to be
/// weights.
fn reachable<'p>(
    pickle: &'p Pickle<'_>,
    start: Ref,
    room: &mut Room,
) -> Result<Vec<Node<'p>>, FormatError> {
    room.take(pickle.count())?;
    let mut seen = vec![false; pickle.count()];
    if let Some(seen) = seen.get_mut(start.index()) {
        *seen = true;
    }
    let mut nodes = vec![Node::new(start, "", None)];
    let mut at = 0;
    while let Some(dict) = nodes.get(at).map(|node| node.dict) {
        let (mut tensors, mut others, mut bytes) = (0, 0, 0u64);
        for (key, value) in pickle.dict(dict).unwrap_or_default() {
            let key = pickle.text(*key);
            if pickle.is_tensor(*value) {
                tensors += 1;
                // At the top such a key is that of a generator's state, deeper that of a weight.
                if at > 0 || !key.is_some_and(is_aside) {
                    bytes = bytes.saturating_add(tensor_bytes(pickle, *value));
                }
                continue;
            }
            others += 1;
            let Some(pairs) = pickle.dict(*value) else { continue };
            let Some(key) = key.filter(|key| !is_aside(key) && !is_optimizer(pickle, pairs)) else {
                continue;
            };
            match seen.get_mut(value.index()) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            // A growing vector may have room for twice as many.
            room.take(2 * size_of::<Node<'_>>())?;
            nodes.push(Node::new(*value, key, Some(at)));
        }
        if let Some(node) = nodes.get_mut(at) {
            (node.tensors, node.others, node.bytes) = (tensors, others, bytes);
        }
        at += 1;
    }
    Ok(nodes)
}

impl<'p> Node<'p> {
    fn new(dict: Ref, key: &'p str, above: Option<usize>) -> Node<'p> {
        Node { dict, key, above, tensors: 0, others: 0, bytes: 0 }
    }
}

/// Whether a key is that of an optimizer's or a random number generator's state.
fn is_aside(key: &str) -> bool {
    let mut words = key.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| {
        let word = word.to_ascii_lowercase();
        word.starts_with("optimizer")
            || word.starts_with("optimiser")
            || ["optim", "optims", "rng"].contains(&word.as_str())
    }) || ASIDE.contains(&key)
}

/// Whether a dict is the state of an optimizer, or of one parameter in it.
fn is_optimizer(pickle: &Pickle<'_>, pairs: &[(Ref, Ref)]) -> bool {
    let mut keys = pairs.iter().filter_map(|pair| pickle.text(pair.0));
    keys.any(|key| MOMENTS.contains(&key))
}

/// The node of the state dict: the largest by far, under a known key or with nothing but tensors.
fn largest(pickle: &Pickle<'_>, nodes: &[Node<'_>]) -> Result<usize, FormatError> {
    let known = |node: &Node<'_>| node.above.is_none() || KNOWN.contains(&node.key);
    let candidates = || nodes.iter().enumerate().filter(|(_, node)| node.tensors > 0);
    // Among equals a known key wins, then the first; `max_by_key` takes the last.
    let size = |node: &Node<'_>| (node.bytes, known(node));
    let Some((best, node)) = candidates().rev().max_by_key(|(_, node)| size(node)) else {
        return Err(none(pickle, nodes));
    };
    let first_key = |mut at: usize| {
        while let Some(above) = nodes.get(at).and_then(|node| node.above).filter(|at| *at > 0) {
            at = above;
        }
        at
    };
    // A tree of dicts is one model in parts: the largest of them is not the model.
    let in_tree = !known(node) && node.above != Some(0);
    let rivals: Vec<usize> = candidates()
        .filter(|(at, other)| {
            let like = other.bytes.saturating_mul(BY_FAR) > node.bytes || node.bytes == 0;
            *at != best && (like || (in_tree && first_key(*at) == first_key(best)))
        })
        .filter(|(_, other)| other.bytes > 0 || node.bytes == 0)
        .map(|(at, _)| at)
        .collect();
    if !rivals.is_empty() {
        let mut named = vec![best];
        named.extend(rivals);
        named.sort_unstable();
        return Err(several(nodes, &named, in_tree));
    }
    if known(node) || node.others == 0 {
        return Ok(best);
    }
    let found = format!(
        "{} beside other values under `{}`",
        counted(node.tensors as u64, "tensor"),
        dotted(nodes, best)
    );
    Err(FormatError::new(Rule::NoStateDict, "pickle", "a dict of nothing but tensors", found).hint(
        format!(
            "if that is the state dict, name it behind the file: FILE::{}",
            dotted(nodes, best)
        ),
    ))
}

/// The keys down to a node, joined by dots and escaped; long ones are cut.
fn dotted(nodes: &[Node<'_>], at: usize) -> String {
    let mut keys = Vec::new();
    let mut next = nodes.get(at);
    while let Some((node, above)) = next.and_then(|node| Some((node, node.above?))) {
        keys.push(node.key);
        next = nodes.get(above);
    }
    keys.reverse();
    escape_up_to(&keys.join("."), 64)
}

fn several(nodes: &[Node<'_>], named: &[usize], in_tree: bool) -> FormatError {
    let sized = |at: &usize| {
        let bytes = human_bytes(nodes.get(*at).map_or(0, |node| node.bytes));
        match dotted(nodes, *at) {
            keys if keys.is_empty() => format!("the top level ({bytes})"),
            keys => format!("`{keys}` ({bytes})"),
        }
    };
    let mut keys = named.iter().map(|at| dotted(nodes, *at));
    let key = keys.find(|key| !key.is_empty()).unwrap_or_default();
    let mut hint = format!("name the one that you mean behind the file, as in FILE::{key}");
    if in_tree {
        hint.push_str("; if they are parts of one model, save its state_dict() first");
    }
    let found = listed(named.iter().map(sized), MOST_NAMED);
    FormatError::new(Rule::SeveralStateDicts, "pickle", "one dict of tensors", found).hint(hint)
}

fn none(pickle: &Pickle<'_>, nodes: &[Node<'_>]) -> FormatError {
    let top = nodes.first().and_then(|top| pickle.dict(top.dict)).unwrap_or_default();
    let keys = top.iter().filter_map(|pair| pickle.text(pair.0)).take(8);
    let keys: Vec<String> = keys.map(|key| format!("`{}`", escape(key))).collect();
    let mut found = match keys.is_empty() {
        true => "none".to_owned(),
        false => format!("none under {}", keys.join(", ")),
    };
    if let Some(name) = pickle.foreign().first() {
        let name = escape(&pickle.full_name(*name));
        found.push_str(&format!("; values of other programs (`{name}`) are not read"));
    }
    FormatError::new(Rule::NoStateDict, "pickle", "a dict of tensors", found)
}

/// The refusal of a user's key that leads to no dict with a tensor.
fn no_entry(pickle: &Pickle<'_>, key: &str) -> FormatError {
    let pairs = pickle.dict(pickle.root()).unwrap_or_default().iter();
    let dicts = pairs.filter(|pair| pickle.dict(pair.1).is_some());
    let keys = dicts.filter_map(|pair| pickle.text(pair.0)).take(MOST_NAMED);
    let keys: Vec<String> = keys.map(|key| format!("`{}`", escape_up_to(key, 64))).collect();
    let found = match keys.is_empty() {
        true => "no dict under any key".to_owned(),
        false => format!("dicts under {}", keys.join(", ")),
    };
    let expected = format!("a dict of tensors under `{}`", escape(key));
    FormatError::new(Rule::NoEntry, "pickle", expected, found)
}
