//! Masks and other buffers that differ between the parents.
