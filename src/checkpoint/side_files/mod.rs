//! Reads the files beside the weights (config, tokenizer, adapter, modules), and selects those that
//! a child gets.

pub(crate) mod adapter;
pub mod config;
pub(crate) mod modules;
pub(crate) mod protobuf;
pub(crate) mod role;
pub(crate) mod selection;
pub(crate) mod special_tokens;
pub(crate) mod token_ids;
pub(crate) mod tokenizer;
pub(crate) mod tokenizer_files;
pub(crate) mod words;
