//! Empty tensors in place of weights.
