//! Parents as people report them in public: what is understood is merged, what is not is refused.

/// Masks and other buffers that differ between the parents.
mod buffers;
/// Configs that give the same shapes another meaning.
mod configs;
/// Index variants, shards that disagree, file names of other programs.
mod files;
/// Parents without checksums, told apart.
mod identity;
/// What training programs save beside the weights.
mod leftovers;
/// sentence-transformers' modules: folders beside the weights.
mod modules;
/// Names behind wrappers and prefixes, old spellings, too much unpaired.
mod names;
/// The order of tensors in shards that were closed out of turn.
mod order;
/// Parts of models, alone and with their siblings.
mod parts;
/// Quantised weights in disguise, adapters, parts of models.
mod quantised;
/// Vocabularies in other dimensions, and edge rows that are special tokens.
mod rows;
/// Empty tensors in place of weights.
mod shells;
/// The small files beside the weights.
mod small_files;
/// Output heads that are the embedding, however they are stored.
mod ties;
