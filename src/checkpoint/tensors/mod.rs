//! Lists the tensors of a checkpoint, restores their order in the model, compares their bytes and
//! recognises buffers.

pub(crate) mod buffer_names;
pub(crate) mod inventory;
pub(crate) mod model_order;
pub(crate) mod same_bytes;
