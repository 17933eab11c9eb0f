//! The tensors of a checkpoint: their list, their order in the model, equal bytes, buffers.

pub(crate) mod buffer_names;
pub(crate) mod inventory;
pub(crate) mod model_order;
pub(crate) mod same_bytes;
