//! Finds outputs of a batch that are one directory, or of which one lies inside another.

use std::path::PathBuf;

use crate::checkpoint::resolved;

/// Two outputs, by position, that are one directory or of which one lies in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    /// The outer one, or the first of the two.
    pub(crate) above: usize,
    /// The other.
    pub(crate) below: usize,
    /// Whether both are one directory.
    pub(crate) same: bool,
}

/// All clashes among `outputs`, links resolved as far as the paths exist.
pub(crate) fn clashes(outputs: &[PathBuf]) -> Vec<Clash> {
    let mut sorted: Vec<(PathBuf, usize)> =
        outputs.iter().enumerate().map(|(position, path)| (resolved(path), position)).collect();
    // Paths compare by component, so a directory comes right before everything in it.
    sorted.sort();
    let mut found = Vec::new();
    let mut open: Vec<&(PathBuf, usize)> = Vec::new();
    for output in &sorted {
        while open.last().is_some_and(|above| !output.0.starts_with(&above.0)) {
            open.pop();
        }
        if let Some(above) = open.last() {
            found.push(Clash { above: above.1, below: output.1, same: above.0 == output.0 });
        }
        open.push(output);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_and_nested_outputs_clash_and_neighbours_do_not() {
        let paths = ["/x/a", "/x/a-b", "/x/b/c", "/x/./a", "/x/b", "/x/b/c/d"].map(PathBuf::from);
        let mut found: Vec<(usize, usize, bool)> =
            clashes(&paths).iter().map(|clash| (clash.above, clash.below, clash.same)).collect();
        found.sort_unstable();
        assert_eq!(found, [(0, 3, true), (2, 5, false), (4, 2, false)]);
    }
}
