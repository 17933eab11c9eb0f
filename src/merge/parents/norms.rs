//! Finds matrices far larger or smaller than the same matrices of other layers: a sign of damaged
//! weights.

use std::collections::HashMap;

use crate::checkpoint::TensorEntry;
use crate::merge::names::buffers::is_buffer;
use crate::merge::names::numbers::unnumbered;

/// Fewest tensors of one kind among which one can be an outlier.
const LEAST: usize = 4;

/// How many times larger or smaller than the median an outlier is. In all-MiniLM-L6-v2, a trained
/// BERT, the matrices of one kind lie between 0.68 and 1.16 of their median.
const FAR: f64 = 10.0;

/// A matrix far from the others of its kind.
#[derive(Clone, Debug)]
pub struct Outlier<'t> {
    /// The tensor.
    pub tensor: &'t TensorEntry,
    /// Its root mean square.
    pub rms: f64,
    /// The median of its kind.
    pub median: f64,
    /// Tensors of its kind, itself included.
    pub of: usize,
}

/// Whether a tensor is a matrix, of any number of dimensions two of which are larger than 1, and no
/// known buffer: one whose elements should not all be zero.
pub fn is_matrix(tensor: &TensorEntry) -> bool {
    let shape = &tensor.layout.shape;
    let wide = shape.iter().filter(|size| **size > 1).count() >= 2;
    wide && tensor.dtype.is_floating() && !is_buffer(&tensor.name, tensor.dtype, shape)
}

/// The matrices whose root mean square is ten times larger or smaller than the median of those of
/// their name, numbers aside, and of their shape. `measured`: tensors with their root mean squares, in
/// any order; those that are zero or not finite, and kinds of fewer than four, are left out.
///
/// The outliers come in the order of `measured`.
pub fn outliers<'t>(measured: &[(&'t TensorEntry, f64)]) -> Vec<Outlier<'t>> {
    let fit = |tensor: &TensorEntry, rms: f64| is_matrix(tensor) && rms.is_finite() && rms > 0.0;
    let of_kind =
        |tensor: &'t TensorEntry| (unnumbered(&tensor.name), tensor.layout.shape.as_slice());
    let mut kinds: HashMap<(String, &[u64]), Vec<f64>> = HashMap::new();
    for (tensor, rms) in measured.iter().filter(|(tensor, rms)| fit(tensor, *rms)) {
        kinds.entry(of_kind(tensor)).or_default().push(*rms);
    }
    kinds.retain(|_, all| all.len() >= LEAST);
    kinds.values_mut().for_each(|all| all.sort_by(f64::total_cmp));
    let mut found = Vec::new();
    for (tensor, rms) in measured.iter().copied().filter(|(tensor, rms)| fit(tensor, *rms)) {
        let Some(all) = kinds.get(&of_kind(tensor)) else { continue };
        let Some(median) = all.get(all.len() / 2).copied() else { continue };
        if rms >= median * FAR || rms * FAR <= median {
            found.push(Outlier { tensor, rms, median, of: all.len() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::merge::headers::Headers;

    fn layers(shapes: &[&[u64]]) -> Checkpoint {
        let mut headers = Headers::new();
        for (layer, shape) in shapes.iter().enumerate() {
            headers = headers.f16(&format!("h.{layer}.mlp.weight"), shape);
        }
        headers.open()
    }

    const NONE: [usize; 0] = [];

    /// Positions of the outliers among layers of one shape.
    fn found(rms: &[f64]) -> Vec<usize> {
        let shape: &[u64] = &[4, 4];
        let parent = layers(&vec![shape; rms.len()]);
        let tensors = &parent.inventory.tensors;
        let measured: Vec<_> = tensors.iter().zip(rms.iter().copied()).collect();
        let names: Vec<&str> =
            outliers(&measured).iter().map(|found| found.tensor.name.as_str()).collect();
        let layer = |name: &&str| tensors.iter().position(|tensor| tensor.name == **name);
        names.iter().filter_map(layer).collect()
    }

    #[test]
    fn one_that_is_ten_times_the_median_or_a_tenth_stands_out() {
        assert_eq!(found(&[1.0, 2.0, 1.5, 15.0]), NONE);
        assert_eq!(found(&[1.0, 1.0, 1.0, 10.0]), [3]);
        assert_eq!(found(&[1.0, 1.0, 1.0, 9.9]), NONE);
        assert_eq!(found(&[0.1, 1.0, 1.0, 1.0]), [0]);
        assert_eq!(found(&[0.11, 1.0, 1.0, 1.0]), NONE);
        assert_eq!(found(&[1e-9, 1.0, 1e30, 1.0, 1.0]), [0, 2]);
    }

    #[test]
    fn few_zero_and_endless_ones_say_nothing() {
        assert_eq!(found(&[1.0, 1.0, 100.0]), NONE);
        assert_eq!(found(&[1.0, 1.0, 0.0, 100.0]), NONE);
        assert_eq!(found(&[1.0, 1.0, f64::INFINITY, f64::NAN, 100.0]), NONE);
        assert_eq!(found(&[1.0, 1.0, 1.0, 0.0, f64::NAN, 100.0]), [5]);
    }

    #[test]
    fn only_matrices_of_one_name_and_shape_are_compared() {
        let rms = [1.0, 1.0, 1.0, 100.0];
        let outliers_of = |parent: &Checkpoint| {
            let tensors = parent.inventory.tensors.iter();
            outliers(&tensors.zip(rms).collect::<Vec<_>>()).len()
        };
        assert_eq!(outliers_of(&layers(&[&[4, 4][..]; 4])), 1);
        assert_eq!(outliers_of(&layers(&[&[4, 4][..], &[4, 4], &[4, 4], &[4, 5]])), 0);
        assert_eq!(outliers_of(&layers(&[&[4][..]; 4])), 0);
        assert_eq!(outliers_of(&layers(&[&[1, 4][..]; 4])), 0);
        let other = Headers::new().f16("a.0.w", &[4, 4]).f16("a.1.w", &[4, 4]);
        let other = other.f16("a.2.w", &[4, 4]).f16("a.3.v", &[4, 4]).open();
        assert_eq!(outliers_of(&other), 0);
    }
}
