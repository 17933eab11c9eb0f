//! The names that a pickle may have, and what each means; none is ever imported or called.

pub(crate) mod denylist;
pub(crate) mod globals;
pub(crate) mod inert;
pub(crate) mod opaque;
