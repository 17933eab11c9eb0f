//! Output heads that are the embedding, however they are stored.
