//! Finds a tensor's layer, and the number of layers, by its name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Keys under which configs give the depth of a stack of layers.
const DEPTH_KEYS: [&str; 10] = [
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_encoder_layers",
    "num_decoder_layers",
    "num_layer",
    "depth",
];

/// Objects in each other that are looked into for depths.
const DEEPEST: usize = 8;

/// The word in front of a number that is no layer's.
const EXPERTS: &str = "experts";

/// The stacks of layers of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    /// Name in front of the number → layers.
    stacks: BTreeMap<String, u64>,
    /// Stacks whose numbers are not those of layers, by the config.
    others: BTreeMap<String, u64>,
    /// Depths that the config gives.
    depths: BTreeSet<u64>,
}

/// A layer of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layer<'n> {
    /// Its stack: the name in front of the number.
    pub(crate) stack: &'n str,
    /// Its number, from 0.
    pub(crate) number: u64,
    /// What follows the number.
    pub(crate) rest: &'n str,
}

/// The outermost number of a name, unless it is an expert's.
pub(crate) fn layer(name: &str) -> Option<Layer<'_>> {
    let mut start = 0;
    let mut before = "";
    for part in name.split('.') {
        let end = start + part.len();
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_number = digits && (part.len() == 1 || !part.starts_with('0'));
        if is_number && start > 0 {
            let number = part.parse().ok().filter(|_| before != EXPERTS)?;
            return Some(Layer { stack: &name[..start - 1], number, rest: &name[end..] });
        }
        before = part;
        start = end + 1;
    }
    None
}

impl Layers {
    /// The stacks among these names. Where the config gives depths, only numbers that go as far are
    /// layers; without it, all that leave none out.
    pub(crate) fn of<'n>(
        names: impl Iterator<Item = &'n str>,
        config: Option<&Map<String, Value>>,
    ) -> Layers {
        let mut numbers: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for found in names.filter_map(layer) {
            numbers.entry(found.stack).or_default().insert(found.number);
        }
        let mut depths = BTreeSet::new();
        if let Some(config) = config {
            add_depths(config, DEEPEST, &mut depths);
        }
        let mut layers = Layers { depths, ..Layers::default() };
        for (stack, numbers) in numbers {
            let length = numbers.last().map_or(0, |last| last.saturating_add(1));
            let is_stack = match layers.depths.is_empty() {
                true => numbers.len() as u64 == length,
                false => layers.depths.contains(&length),
            };
            let list = if is_stack { &mut layers.stacks } else { &mut layers.others };
            list.insert(stack.to_owned(), length);
        }
        layers
    }

    /// Where a tensor stands in its stack, in 0..=1; `None` outside the layers. A layer alone stands
    /// at 1, as in mergekit.
    #[expect(clippy::cast_precision_loss, reason = "no model has 2^53 layers")]
    pub(crate) fn place(&self, name: &str) -> Option<f64> {
        let found = layer(name)?;
        let length = *self.stacks.get(found.stack)?;
        Some(match length {
            0 | 1 => 1.0,
            _ => found.number as f64 / (length - 1) as f64,
        })
    }

    /// The only stack and its layers; `None` where there is none, or more than one.
    pub(crate) fn only(&self) -> Option<(&str, u64)> {
        let mut stacks = self.stacks.iter();
        let (stack, length) = stacks.next()?;
        stacks.next().is_none().then_some((stack.as_str(), *length))
    }

    /// The layers of the longest stack.
    pub(crate) fn deepest(&self) -> Option<u64> {
        self.stacks.values().copied().max()
    }

    /// The stacks in words.
    pub(crate) fn shown(&self) -> String {
        let stacks = self.stacks.iter().map(|(stack, length)| format!("{stack}.N: {length}"));
        let stacks = stacks.collect::<Vec<_>>().join(", ");
        if stacks.is_empty() { "none".to_owned() } else { stacks }
    }

    /// What is wrong where the config gives depths and no stack has one of them: the depths, and the
    /// stacks that there are.
    pub(crate) fn disagreement(&self) -> Option<(String, String)> {
        if !self.stacks.is_empty() || self.others.is_empty() {
            return None;
        }
        let depths: Vec<String> = self.depths.iter().map(u64::to_string).collect();
        let found: Vec<String> =
            self.others.iter().map(|(stack, length)| format!("{stack}.N: {length}")).collect();
        Some((depths.join(" or "), found.join(", ")))
    }
}

fn add_depths(config: &Map<String, Value>, deepest: usize, depths: &mut BTreeSet<u64>) {
    for (key, value) in config {
        match value {
            Value::Number(number) if DEPTH_KEYS.contains(&key.as_str()) => {
                depths.extend(number.as_u64());
            }
            Value::Object(inner) if deepest > 0 => add_depths(inner, deepest - 1, depths),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(names: &[&str], config: &str) -> Layers {
        let config: Map<String, Value> = serde_json::from_str(config).unwrap();
        Layers::of(names.iter().copied(), Some(&config).filter(|config| !config.is_empty()))
    }

    #[test]
    fn the_outermost_number_is_the_layer_and_an_expert_is_none() {
        for (name, expected) in [
            ("model.layers.10.mlp.experts.3.w", Some(("model.layers", 10, ".mlp.experts.3.w"))),
            ("h.7", Some(("h", 7, ""))),
            ("h.07.w", None),
            ("encoder.block.0.layer.1.w", Some(("encoder.block", 0, ".layer.1.w"))),
            ("0.layers.2.w", Some(("0.layers", 2, ".w"))),
            ("experts.3.w", None),
            ("mlp.experts.3.w", None),
            ("norm.weight", None),
            ("h.99999999999999999999.w", None),
        ] {
            let found = layer(name).map(|found| (found.stack, found.number, found.rest));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn places_go_from_0_to_1_in_each_stack_of_its_own() {
        let names = ["enc.0.w", "enc.1.w", "enc.2.w", "dec.0.w", "dec.1.w", "norm.w", "one.0.w"];
        let layers = layers(&names, "{}");
        let places: Vec<Option<f64>> = names.iter().map(|name| layers.place(name)).collect();
        let expected = [Some(0.0), Some(0.5), Some(1.0), Some(0.0), Some(1.0), None, Some(1.0)];
        assert_eq!(places, expected);
        assert_eq!(layers.only(), None);
    }

    #[test]
    fn numbers_that_are_not_as_deep_as_the_config_says_are_no_layers() {
        let names = ["h.0.w", "h.1.w", "classifier.0.w", "classifier.1.w", "classifier.2.w"];
        let deep = layers(&names, r#"{"text_config": {"n_layer": 2}}"#);
        assert_eq!(deep.only(), Some(("h", 2)));
        assert_eq!((deep.place("h.1.w"), deep.place("classifier.1.w")), (Some(1.0), None));
        assert_eq!(deep.disagreement(), None);
        let none = layers(&names, r#"{"num_hidden_layers": 24}"#);
        let said = ("24".to_owned(), "classifier.N: 3, h.N: 2".to_owned());
        assert_eq!(none.disagreement(), Some(said));
        // A number that is left out is no count of layers, unless the config counts so.
        assert_eq!(layers(&["h.0.w", "h.2.w"], "{}").only(), None);
        assert_eq!(layers(&["h.0.w", "h.2.w"], r#"{"n_layer": 3}"#).only(), Some(("h", 3)));
    }
}
