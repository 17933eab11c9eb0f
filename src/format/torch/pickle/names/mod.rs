//! Looks up what a name in a pickle means. None is ever imported or called.

pub(crate) mod denylist;
pub(crate) mod globals;
pub(crate) mod inert;
pub(crate) mod opaque;
