//! The merge of one tensor: its two sources, its units of work, their results and errors.

pub(crate) mod errors;
pub(crate) mod tensor_task;
pub(crate) mod units;
pub(crate) mod worker;
