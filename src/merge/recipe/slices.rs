//! Children of some layers of their parents: both parents are cut to these layers, renumbered as the
//! child's, and merged like whole models.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Inventory, Side, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::recipe::layers::{Layers, layer};
use crate::merge::recipe::schedule::Filter;
use crate::tensor::escape;

/// Layers that a child may have: a bound for files from strangers.
const MOST_LAYERS: u64 = 10_000;

/// Layers of both parents that are layers of the child, one behind the other. Ranges go from the first
/// to the one behind the last and have one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The primary's.
    pub primary: (u64, u64),
    /// The secondary's.
    pub secondary: (u64, u64),
    /// Filters for these layers alone, before those of the child.
    pub filters: Vec<Filter>,
}

impl Slice {
    /// The layers of one parent.
    pub fn of(&self, side: Side) -> (u64, u64) {
        match side {
            Side::Primary => self.primary,
            Side::Secondary => self.secondary,
        }
    }

    fn len(&self) -> u64 {
        self.primary.1.saturating_sub(self.primary.0)
    }
}

/// Where the child's layer of this number stands: its slice, and 0..=1 within that.
#[expect(clippy::cast_precision_loss, reason = "no model has 2^53 layers")]
pub(crate) fn place(slices: &[Slice], mut number: u64) -> Option<(&Slice, f64)> {
    for slice in slices {
        if number < slice.len() {
            let x = if slice.len() == 1 { 1.0 } else { number as f64 / (slice.len() - 1) as f64 };
            return Some((slice, x));
        }
        number -= slice.len();
    }
    None
}

/// Whether the slices are all layers of a model, in their order.
pub fn is_whole(parent: &Checkpoint, side: Side, slices: &[Slice]) -> bool {
    let layers = layers_of(parent);
    let whole = |(_, depth): (&str, u64)| matches!(slices, [one] if one.of(side) == (0, depth));
    layers.only().is_some_and(whole)
}

/// Layers of the longest stack of a model.
pub fn depth(parent: &Checkpoint) -> Option<u64> {
    layers_of(parent).deepest()
}

fn layers_of(parent: &Checkpoint) -> Layers {
    let names = parent.inventory.tensors.iter().map(|tensor| tensor.name.as_str());
    Layers::of(names, parent.config.as_ref().map(|config| config.values()))
}

/// The parent with the layers of the slices and no others, under the numbers of the child's.
///
/// A layer that is taken twice is there twice. Its config has the child's depth, and its lists with an
/// entry for each layer have those of the layers that are left.
///
/// # Errors
/// [`Kind::Usage`] for a range beyond the model; [`Kind::Data`] for a model without one stack of layers,
/// or whose config counts layers in a way that does not hold for the child, unless `force` is given.
pub fn cut(parent: Checkpoint, side: Side, slices: &[Slice], force: bool) -> Result<Checkpoint> {
    let layers = layers_of(&parent);
    if let Some((expected, found)) = layers.disagreement() {
        return Err(Error::new(Kind::Data, "the model can't be cut into slices")
            .file(&parent.path)
            .expected(format!("as many layers as config.json says, {expected}"), escape(&found)));
    }
    let Some((stack, depth)) = layers.only() else {
        return Err(Error::new(Kind::Data, "the model can't be cut into slices")
            .file(&parent.path)
            .expected("one stack of layers", escape(&layers.shown())));
    };
    let total = slices.iter().map(Slice::len).fold(0, u64::saturating_add);
    if total > MOST_LAYERS {
        return Err(Error::new(Kind::Usage, "a child of too many layers")
            .expected(format!("at most {MOST_LAYERS}"), total.to_string()));
    }
    for slice in slices {
        let (from, to) = slice.of(side);
        if to > depth || from >= to {
            return Err(Error::new(Kind::Usage, "layer_range goes beyond the model")
                .file(&parent.path)
                .expected(format!("layers in 0..{depth}"), format!("[{from}, {to}]")));
        }
    }
    let picks: Vec<u64> =
        slices.iter().flat_map(|slice| slice.of(side).0..slice.of(side).1).collect();
    let config = parent.config.as_ref().map(|config| {
        config.with_layers(depth, &picks, force).map_err(|error| match &parent.dir {
            Some(dir) => error.file(&dir.join("config.json")),
            None => error,
        })
    });
    let config = config.transpose()?;
    let inventory = inventory(&parent.inventory, stack, &picks);
    // The index's figure is that of the whole model.
    Ok(Checkpoint { config, inventory, total_parameters: None, ..parent })
}

/// The inventory with these layers of the stack.
fn inventory(whole: &Inventory, stack: &str, picks: &[u64]) -> Inventory {
    let mut of_layer: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut first = None;
    for (position, tensor) in whole.tensors.iter().enumerate() {
        if let Some(found) = layer(&tensor.name).filter(|found| found.stack == stack) {
            first.get_or_insert(position);
            of_layer.entry(found.number).or_default().push(position);
        }
    }
    let mut made = Cut {
        whole,
        inventory: Inventory::default(),
        storages: HashMap::new(),
        places: HashMap::new(),
    };
    for (position, tensor) in whole.tensors.iter().enumerate() {
        if Some(position) == first {
            let mut taken: HashMap<u64, usize> = HashMap::new();
            for (number, pick) in picks.iter().enumerate() {
                let copy = taken.entry(*pick).or_insert(0);
                for position in of_layer.get(pick).into_iter().flatten() {
                    let rest = layer(&whole.tensors[*position].name).map_or("", |found| found.rest);
                    made.push(*position, format!("{stack}.{number}{rest}"), *copy);
                }
                *copy += 1;
            }
        }
        if layer(&tensor.name).is_none_or(|found| found.stack != stack) {
            made.push(position, tensor.name.clone(), 0);
        }
    }
    let twin = |(a, b): &(usize, usize)| {
        let (a, b) = (*made.places.get(a)?, *made.places.get(b)?);
        Some((a.min(b), a.max(b)))
    };
    let twins = whole.twins.iter().filter_map(twin).collect();
    Inventory { twins, ..made.inventory }
}

/// An inventory in the making.
struct Cut<'w> {
    whole: &'w Inventory,
    inventory: Inventory,
    /// Copy and storage of the whole → storage.
    storages: HashMap<(usize, usize), usize>,
    /// Tensor of the whole → its first place.
    places: HashMap<usize, usize>,
}

impl Cut<'_> {
    fn push(&mut self, position: usize, name: String, copy: usize) {
        let tensor = &self.whole.tensors[position];
        let Some(storage) = self.whole.storages.get(tensor.storage) else { return };
        let inventory = &mut self.inventory;
        let place = *self.storages.entry((copy, tensor.storage)).or_insert_with(|| {
            inventory.storages.push(storage.clone());
            inventory.storages.len() - 1
        });
        self.places.entry(position).or_insert(inventory.tensors.len());
        inventory.tensors.push(TensorEntry { name, storage: place, ..tensor.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::Headers;
    use crate::merge::{Child, MergeOptions, Schedule, plan};

    fn parent(depth: u64, config: &str) -> Checkpoint {
        let layer = |headers: Headers, at: u64| {
            headers.f16(&format!("h.{at}.attn.w"), &[at + 1]).f16(&format!("h.{at}.mlp.w"), &[2])
        };
        let headers = (0..depth).fold(Headers::new().f16("wte.weight", &[8, 4]), layer);
        headers.f16("norm.w", &[3]).config(config).open()
    }

    fn slice(primary: (u64, u64), secondary: (u64, u64), filters: &[&str]) -> Slice {
        let filters = filters.iter().map(|text| Filter::parse(text).unwrap()).collect();
        Slice { primary, secondary, filters }
    }

    fn names(parent: &Checkpoint) -> Vec<(String, u64)> {
        let tensors = parent.inventory.tensors.iter();
        tensors.map(|tensor| (tensor.name.clone(), tensor.layout.shape[0])).collect()
    }

    #[test]
    fn layers_are_renumbered_and_one_that_is_taken_twice_is_there_twice() {
        let slices = [slice((2, 4), (0, 2), &[]), slice((3, 4), (1, 2), &[])];
        let made = cut(parent(4, r#"{"n_layer": 4}"#), Side::Primary, &slices, false).unwrap();
        let expected = [
            ("wte.weight", 8),
            ("h.0.attn.w", 3),
            ("h.0.mlp.w", 2),
            ("h.1.attn.w", 4),
            ("h.1.mlp.w", 2),
            ("h.2.attn.w", 4),
            ("h.2.mlp.w", 2),
            ("norm.w", 3),
        ];
        assert_eq!(names(&made), expected.map(|(name, rows)| (name.to_owned(), rows)));
        let storages: Vec<usize> = made.inventory.tensors.iter().map(|t| t.storage).collect();
        assert_eq!(storages, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(made.config.unwrap().text(), r#"{"n_layer": 3}"#);
    }

    #[test]
    fn ranges_beyond_the_model_and_models_of_two_stacks_are_refused() {
        let config = r#"{"n_layer": 4}"#;
        for range in [(0, 5), (4, 5), (3, 3)] {
            let slices = [slice(range, range, &[])];
            let error = cut(parent(4, config), Side::Primary, &slices, false).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{range:?}");
        }
        let two = Headers::new().f16("e.0.w", &[2]).f16("d.0.w", &[2]).open();
        let error = cut(two, Side::Primary, &[slice((0, 1), (0, 1), &[])], false).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        let many = vec![slice((0, 4), (0, 4), &[]); 2501];
        let error = cut(parent(4, config), Side::Primary, &many, false).unwrap_err();
        assert!(error.to_string().contains("too many layers"));
    }

    #[test]
    fn a_list_is_spread_over_each_slice_and_its_own_filters_come_first() {
        let slices = [slice((0, 3), (0, 3), &["attn=0,1"]), slice((3, 4), (2, 3), &[])];
        let filters = vec![Filter::parse("*=0.2,0.6").unwrap()];
        let child = Child { name: "x".to_owned(), schedule: Schedule { filters, rest: None } };
        let options = MergeOptions {
            children: vec![child],
            slices: slices.to_vec(),
            missing: Some(crate::merge::Missing::Primary),
            ..MergeOptions::default()
        };
        let same = |depth| {
            let layer = |headers: Headers, at: u64| {
                headers.f16(&format!("h.{at}.attn.w"), &[2]).f16(&format!("h.{at}.mlp.w"), &[2])
            };
            let headers = (0..depth).fold(Headers::new().f16("wte.weight", &[8, 4]), layer);
            headers.f16("norm.w", &[3]).open()
        };
        let primary = cut(same(4), Side::Primary, &slices, false).unwrap();
        let secondary = cut(same(3), Side::Secondary, &slices, false).unwrap();
        let plan = plan(&primary, &secondary, &options).unwrap();
        let t: Vec<(String, f64)> =
            plan.storages.iter().map(|made| (made.name.clone(), made.t[0])).collect();
        let expected = [
            ("wte.weight", 0.2),
            ("h.0.attn.w", 0.0),
            ("h.0.mlp.w", 0.2),
            ("h.1.attn.w", 0.5),
            ("h.1.mlp.w", 0.4),
            ("h.2.attn.w", 1.0),
            ("h.2.mlp.w", 0.6),
            // A layer alone in its slice stands at its end.
            ("h.3.attn.w", 0.6),
            ("h.3.mlp.w", 0.6),
            ("norm.w", 0.2),
        ];
        for ((name, t), (expected, value)) in t.iter().zip(expected) {
            assert!(name == expected && (t - value).abs() < 1e-15, "{name}: {t}");
        }
        assert_eq!(t.len(), expected.len());
    }

    #[test]
    fn one_slice_of_all_layers_is_the_whole_model() {
        let whole = parent(4, r#"{"n_layer": 4}"#);
        for (range, expected) in [((0, 4), true), ((0, 3), false), ((1, 4), false)] {
            assert_eq!(is_whole(&whole, Side::Primary, &[slice(range, range, &[])]), expected);
        }
        let halves = [slice((0, 2), (0, 2), &[]), slice((2, 4), (2, 4), &[])];
        assert!(!is_whole(&whole, Side::Primary, &halves) && !is_whole(&whole, Side::Primary, &[]));
    }
}
