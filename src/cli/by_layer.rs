//! Well-known schedules of t over the layers, as the prompt offers them, and their curves.

use std::fmt;

use crate::checkpoint::Checkpoint;
use crate::merge::{Filter, Gradient, depth};

/// What is typed in place of a number.
pub(crate) const WORDS: &str = "by layer";

/// Heights of a curve, lowest first.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Widest curve, in layers; of more layers, evenly spaced ones are drawn.
const WIDEST: usize = 64;

/// Pieces of names, by which families call their attention and their feed-forward network. The first
/// that a model's names hold is its own.
const ATTENTION: [&str; 4] = ["self_attn", "attention", "attn", "SelfAttention"];
const FEED_FORWARD: [&str; 5] = ["mlp", "feed_forward", "ffn", "DenseReluDense", "intermediate"];

/// A schedule to choose.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Offer {
    name: &'static str,
    pub(crate) filters: Vec<Filter>,
    /// t of the other tensors.
    pub(crate) rest: f64,
    depth: u64,
}

/// The schedules that a model's names and layers allow.
pub(crate) fn offers(model: &Checkpoint) -> Vec<Offer> {
    let Some(depth) = depth(model).filter(|depth| *depth > 1) else { return Vec::new() };
    let held = |pieces: &[&'static str]| {
        let names = || model.inventory.tensors.iter().map(|tensor| &tensor.name);
        pieces.iter().copied().find(|piece| names().any(|name| name.contains(piece)))
    };
    let filter =
        |filter: &str, t: &[f64]| Filter { filter: filter.to_owned(), t: Gradient(t.to_vec()) };
    let offer = |name, filters, rest| Offer { name, filters, rest, depth };
    let mut offers = Vec::new();
    if let (Some(attention), Some(mlp)) = (held(&ATTENTION), held(&FEED_FORWARD)) {
        let crossed = vec![
            filter(attention, &[0.0, 0.5, 0.3, 0.7, 1.0]),
            filter(mlp, &[1.0, 0.5, 0.7, 0.3, 0.0]),
        ];
        offers.push(offer("attention and MLP crossed, as in most recipes", crossed, 0.5));
    }
    for (name, t) in [
        ("from the primary to the secondary", &[0.0, 1.0][..]),
        ("from the secondary to the primary", &[1.0, 0.0]),
        ("the primary's at both ends", &[0.0, 0.5, 0.5, 0.5, 0.0]),
    ] {
        offers.push(offer(name, vec![filter("*", t)], 0.5));
    }
    if let Some(mlp) = held(&FEED_FORWARD) {
        offers.push(offer(
            "the MLPs halfway, the rest the primary's",
            vec![filter(mlp, &[0.5])],
            0.0,
        ));
    }
    offers
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Offer {
    /// A line for each filter: its name, t of each layer as a curve, and its values.
    pub(crate) fn curves(&self) -> Vec<[String; 3]> {
        let line = |filter: &Filter| {
            let curve: String = sampled(&filter.t.along(self.depth)).map(height).collect();
            [filter.filter.clone(), curve, filter.t.to_string()]
        };
        let mut lines: Vec<[String; 3]> = self.filters.iter().map(line).collect();
        if !self.filters.iter().any(Filter::fits_all) {
            lines.push(["other tensors".to_owned(), String::new(), self.rest.to_string()]);
        }
        lines
    }
}

/// At most [`WIDEST`] of the values, the first and the last among them.
fn sampled(values: &[f64]) -> impl Iterator<Item = f64> + use<'_> {
    let count = values.len().min(WIDEST);
    let last = values.len().saturating_sub(1);
    let place = move |step: usize| step * last / count.saturating_sub(1).max(1);
    (0..count).filter_map(move |step| values.get(place(step)).copied())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "t is in 0..=1")]
fn height(t: f64) -> char {
    HEIGHTS[((t * 7.0).round() as usize).min(7)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_a_bar_for_each_layer_as_high_as_t() {
        let offer = |t: &str, depth| Offer {
            name: "x",
            filters: vec![Filter::parse(t).unwrap()],
            rest: 0.5,
            depth,
        };
        let curve = |t: &str, depth| offer(t, depth).curves()[0][1].clone();
        assert_eq!(curve("mlp=0,1", 8), "▁▂▃▄▅▆▇█");
        assert_eq!(curve("mlp=1,0", 3), "█▅▁");
        let wide = curve("mlp=0,1", 1000);
        assert_eq!(
            (wide.chars().count(), wide.chars().next(), wide.chars().last()),
            (64, Some('▁'), Some('█'))
        );
        let lines = offer("mlp=0,1", 8).curves();
        assert_eq!(lines[1], ["other tensors", "", "0.5"]);
        assert_eq!(offer("*=0,1", 8).curves().len(), 1);
    }
}
