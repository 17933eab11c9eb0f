//! Integration tests: the real binary on real checkpoint files.

/// `verify`: what is found in whole and damaged models, and that no flipped bit goes unnoticed.
mod verify;
