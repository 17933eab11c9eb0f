//! One tensor's merge: its sides, its spans, what is known of it so far, what can go wrong.

pub(crate) mod errors;
pub(crate) mod tensor_task;
pub(crate) mod units;
pub(crate) mod worker;
