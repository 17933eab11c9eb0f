//! Index variants, shards that disagree, file names of other programs.
