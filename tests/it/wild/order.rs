//! The order of tensors in shards that were closed out of turn.
