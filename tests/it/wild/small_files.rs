//! The small files beside the weights.
