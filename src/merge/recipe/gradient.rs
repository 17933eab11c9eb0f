//! Interpolates values of t along the layers.

use serde::{Deserialize, Serialize};

/// One value, or several that are spread over the layers, each in 0..=1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gradient(pub Vec<f64>);

impl Gradient {
    /// Reads `0.5` or `0,0.5,1`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Gradient, String> {
        text.split(',').map(parse_t).collect::<Result<_, _>>().map(Gradient)
    }

    /// The value at `x` in 0..=1, linear between neighbours, which stand evenly spaced.
    ///
    /// The arithmetic is that of mergekit 0.1.4 (`config.py`, `evaluate_setting`).
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as many values as a command line holds, and x is in 0..=1"
    )]
    pub(crate) fn at(&self, x: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        let scaled = x * last as f64;
        let place = (scaled as usize).min(last);
        let (before, after) = (self.0[place], self.0[(place + 1).min(last)]);
        if before == after {
            return Some(before);
        }
        let part = scaled - place as f64;
        Some((1.0 - part) * before + part * after)
    }

    /// The values of this many layers.
    #[expect(clippy::cast_precision_loss, reason = "no model has 2^53 layers")]
    pub fn along(&self, depth: u64) -> Vec<f64> {
        let x = |layer: u64| if depth < 2 { 1.0 } else { layer as f64 / (depth - 1) as f64 };
        (0..depth).filter_map(|layer| self.at(x(layer))).collect()
    }

    /// Whether all of its values are one.
    pub fn is_flat(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0] == pair[1])
    }
}

impl std::fmt::Display for Gradient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values: Vec<String> = self.0.iter().map(f64::to_string).collect();
        f.write_str(&values.join(","))
    }
}

/// A value of t.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_t(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(t) if (0.0..=1.0).contains(&t) => Ok(t),
        _ => Err(format!("t must lie in 0..=1, got `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_evenly_spaced_and_are_linear_between() {
        let gradient = Gradient(vec![0.0, 0.5, 0.3, 0.7, 1.0]);
        // By hand: x·4 = 0, 0.5, 1, 2.6, 4.
        for (x, t) in [(0.0, 0.0), (0.125, 0.25), (0.25, 0.5), (0.65, 0.54), (1.0, 1.0)] {
            let found = gradient.at(x).expect("values");
            assert!((found - t).abs() < 1e-15, "{x}: {found}");
        }
        assert_eq!(Gradient(vec![0.3]).at(0.7), Some(0.3));
        assert_eq!(Gradient(vec![]).at(0.7), None);
    }

    #[test]
    fn between_equal_values_nothing_is_rounded() {
        let gradient = Gradient(vec![1.0, 1.0, 0.0]);
        assert!((0..50).all(|place| gradient.at(f64::from(place) / 100.0) == Some(1.0)));
        assert!(!gradient.is_flat() && Gradient(vec![0.2, 0.2]).is_flat());
    }

    #[test]
    fn what_is_no_t_is_refused() {
        assert_eq!(Gradient::parse("0, 0.5,1"), Ok(Gradient(vec![0.0, 0.5, 1.0])));
        for text in ["", "0,", "1.1", "-0.1", "nan", "0.5;1", "inf"] {
            assert!(Gradient::parse(text).is_err(), "{text}");
        }
    }
}
