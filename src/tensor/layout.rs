//! `Layout`: how a tensor lies in its storage: shape, strides and offset, all in ELEMENTS.

use serde::Serialize;

/// Shape, strides and offset of a strided tensor, all counted in elements (never bytes).
///
/// Every function uses checked arithmetic: the numbers come from files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Layout {
    /// Size of each dimension; empty for a 0-dim tensor.
    pub shape: Vec<u64>,
    /// Elements between neighbours along each dimension; as many as `shape`.
    pub stride: Vec<u64>,
    /// Elements from the start of the storage to the first element.
    pub storage_offset: u64,
}

impl Layout {
    /// A contiguous layout at the start of its storage. Strides as torch gives them:
    /// from the right, the product of `max(size, 1)`. Saturates where the product overflows.
    pub fn contiguous(shape: &[u64]) -> Layout {
        Layout { shape: shape.to_vec(), stride: contiguous_stride(shape), storage_offset: 0 }
    }

    /// Number of elements, or `None` where the product overflows u64.
    pub fn numel(&self) -> Option<u64> {
        numel(&self.shape)
    }

    /// One past the last element of the storage that the tensor touches, counted in elements from
    /// the storage's start; 0 for an empty tensor; `None` on overflow.
    pub fn end(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let mut last = self.storage_offset;
        for (size, stride) in self.shape.iter().zip(&self.stride) {
            last = last.checked_add((size - 1).checked_mul(*stride)?)?;
        }
        last.checked_add(1)
    }

    /// Whether the elements lie in row-major order without gaps (strides of dimensions of size 1
    /// don't matter, as in torch).
    pub fn is_contiguous(&self) -> bool {
        if self.shape.contains(&0) {
            return true;
        }
        let mut expected = 1u64;
        for (size, stride) in self.shape.iter().zip(&self.stride).rev() {
            if *size != 1 {
                if *stride != expected {
                    return false;
                }
                expected = match expected.checked_mul(*size) {
                    Some(product) => product,
                    None => return false,
                };
            }
        }
        true
    }
}

/// Number of elements of a shape, or `None` where the product overflows u64.
pub fn numel(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size))
}

fn contiguous_stride(shape: &[u64]) -> Vec<u64> {
    let mut stride = vec![1u64; shape.len()];
    let mut step = 1u64;
    for (slot, size) in stride.iter_mut().zip(shape).rev() {
        *slot = step;
        step = step.saturating_mul((*size).max(1));
    }
    stride
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(shape: &[u64], stride: &[u64], storage_offset: u64) -> Layout {
        Layout { shape: shape.to_vec(), stride: stride.to_vec(), storage_offset }
    }

    #[test]
    fn contiguous_strides_are_those_torch_prints() {
        assert_eq!(Layout::contiguous(&[2, 3]).stride, [3, 1]);
        assert_eq!(Layout::contiguous(&[2, 0, 3]).stride, [3, 3, 1]);
        assert_eq!(Layout::contiguous(&[]).stride, [0u64; 0]);
    }

    #[test]
    fn end_is_one_past_the_last_touched_element() {
        assert_eq!(layout(&[2, 3], &[3, 1], 5).end(), Some(11));
        assert_eq!(layout(&[3, 2], &[1, 3], 0).end(), Some(6));
        assert_eq!(layout(&[], &[], 4).end(), Some(5));
        assert_eq!(layout(&[0, 3], &[3, 1], 100).end(), Some(0));
        assert_eq!(layout(&[2, 2], &[1 << 62, 1 << 63], 1 << 63).end(), None);
    }

    #[test]
    fn contiguity_ignores_strides_of_size_one() {
        assert!(layout(&[1, 3], &[77, 1], 2).is_contiguous());
        assert!(!layout(&[3, 2], &[1, 3], 0).is_contiguous());
        assert!(!layout(&[3], &[0], 0).is_contiguous());
    }

    #[test]
    fn numel_of_an_overflowing_shape_is_none() {
        assert_eq!(numel(&[1 << 40, 1 << 40]), None);
        assert_eq!(numel(&[1 << 40, 1 << 40, 0]), Some(0));
    }
}
