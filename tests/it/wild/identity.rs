//! Parents without checksums, told apart.
