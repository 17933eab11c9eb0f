//! The trait `Reporter`, to which a running merge reports its progress.

/// Told of progress by the engine's workers, from any of their threads, at most once per span
/// (about 8 MB). Calls change nothing in the result.
pub trait Reporter: Send + Sync {
    /// Work begins; `total_bytes` is what [`Reporter::advance`] will add up to: the child's bytes.
    fn start(&self, total_bytes: u64) {
        let _ = total_bytes;
    }

    /// So many more bytes of the child are made.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// What is being done now, in a few words (`flushing to disk`).
    fn phase(&self, words: &str) {
        let _ = words;
    }

    /// Work is over, well or not.
    fn finish(&self) {}
}

/// Silence.
impl Reporter for () {}
