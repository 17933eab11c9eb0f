//! Integration tests: the real binary on real checkpoint files.
