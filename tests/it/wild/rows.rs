//! Vocabularies in other dimensions, and edge rows that are special tokens.
