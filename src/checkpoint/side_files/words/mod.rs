//! Reads the words of a vocabulary: the token that each row of the embedding stands for.

pub(crate) mod added;
pub(crate) mod files;
pub(crate) mod pieces;
pub(crate) mod read;
pub(crate) mod spelling;
pub(crate) mod tokenizer_json;
pub(crate) mod union;
pub(crate) mod vocabulary;
