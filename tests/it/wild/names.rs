//! Names behind wrappers and prefixes, old spellings, too much unpaired.
