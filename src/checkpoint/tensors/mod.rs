//! The tensors that weight files hold: their order in the model, and which have equal bytes.

pub(crate) mod buffer_names;
pub(crate) mod inventory;
pub(crate) mod model_order;
pub(crate) mod same_bytes;
