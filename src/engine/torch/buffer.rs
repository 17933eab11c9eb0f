//! `Buffer`: host memory that files and torch share. The only file that lays a tensor over bytes.
#![expect(unsafe_code, reason = "a slice over a tensor's own memory")]

use std::sync::Once;

use tch::{Device, Kind as TorchKind, TchError, Tensor};

use crate::engine::torch::calls::{TorchResult, to_i64};
use crate::error::Result;

/// A block of host memory, owned by a uint8 tensor, 64-byte aligned by torch's allocator.
///
/// Rust writes it through [`Buffer::bytes_mut`], torch reads and writes it through
/// [`Buffer::view`]. Views share the memory and keep it alive.
#[derive(Debug)]
pub(crate) struct Buffer {
    tensor: Tensor,
    len: usize,
}

impl Buffer {
    /// A block of `len` zero bytes.
    pub(crate) fn new(len: usize) -> Result<Buffer> {
        let options = (TorchKind::Uint8, Device::Cpu);
        let tensor = Tensor::f_zeros([to_i64(len)?], options).or_torch("allocate")?;
        Ok(Buffer { tensor, len })
    }

    /// The same in page-locked memory, from which CUDA copies at the link's full rate. Plain memory
    /// where `device` is no CUDA device, or where none can be locked.
    pub(crate) fn pinned(len: usize, device: Device) -> Result<Buffer> {
        let plain = Buffer::new(len)?;
        if !device.is_cuda() || len == 0 {
            return Ok(plain);
        }
        match plain.tensor.f_internal_pin_memory(device) {
            Ok(tensor) => Ok(Buffer { tensor, len }),
            Err(error) => {
                warn_pageable(&error);
                Ok(plain)
            }
        }
    }

    /// The first byte whose address is a multiple of `alignment`.
    pub(crate) fn aligned(&self, alignment: usize) -> usize {
        self.bytes().as_ptr().align_offset(alignment).min(self.len)
    }

    /// The block's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        let pointer = self.tensor.data_ptr().cast::<u8>();
        if self.len == 0 || pointer.is_null() {
            return &[];
        }
        // SAFETY: the tensor is a contiguous CPU uint8 tensor of `len` elements that lives as long
        // as `self`; every byte is initialised (zeros at first) and any bit pattern is a u8; torch
        // only writes during calls that this thread makes, none of which overlaps this borrow.
        unsafe { std::slice::from_raw_parts(pointer, self.len) }
    }

    /// The block's bytes, to write.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let pointer = self.tensor.data_ptr().cast::<u8>();
        if self.len == 0 || pointer.is_null() {
            return &mut [];
        }
        // SAFETY: as in `bytes`; `&mut self` makes this the only Rust borrow, and views are plain
        // handles through which torch touches the memory only inside calls of this thread.
        unsafe { std::slice::from_raw_parts_mut(pointer, self.len) }
    }

    /// A 1-D tensor of `numel` elements of `kind` over the bytes from `start` on. `start` must be a
    /// multiple of the element size (torch checks).
    pub(crate) fn view(&self, start: usize, kind: TorchKind, numel: usize) -> Result<Tensor> {
        let bytes = numel.saturating_mul(kind.elt_size_in_bytes());
        let (start, bytes) = (to_i64(start)?, to_i64(bytes)?);
        self.tensor
            .f_narrow(0, start, bytes)
            .or_torch("take a view")?
            .f_view_dtype(kind)
            .or_torch("take a view")
    }
}

/// Says once that memory is not page-locked.
pub(crate) fn warn_pageable(error: &TchError) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        log::warn!("no page-locked memory, copies are slow (see `ulimit -l`): {first}");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torch_sees_the_bytes_that_were_written_and_writes_back() {
        let mut buffer = Buffer::new(64).unwrap();
        buffer.bytes_mut()[8..12].copy_from_slice(&1.5f32.to_le_bytes());
        let mut view = buffer.view(8, TorchKind::Float, 2).unwrap();
        assert_eq!(f64::try_from(view.get(0)).unwrap(), 1.5);
        let _ = view.fill_(2.0);
        assert_eq!(&buffer.bytes()[12..16], &2f32.to_le_bytes());
    }

    #[test]
    fn a_view_past_the_end_is_an_error() {
        let buffer = Buffer::new(16).unwrap();
        assert!(buffer.view(8, TorchKind::Float, 3).is_err());
    }
}
