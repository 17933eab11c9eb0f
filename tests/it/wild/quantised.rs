//! Quantised weights in disguise, adapters, parts of models.
