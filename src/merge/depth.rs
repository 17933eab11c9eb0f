//! How many layers, experts and the like each parent has, by the numbers in its names.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Kind, Result};
use crate::merge::mismatch::capped;
use crate::merge::names::Names;
use crate::tensor::escape;

/// Refuses parents with different numbers of layers (or experts): for every place where names
/// count, both must count alike.
pub(crate) fn check_depth(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    names: &Names,
) -> Result<()> {
    let (ours, theirs) = (counts(&names.child), counts(&names.theirs));
    let lines: Vec<String> = ours
        .iter()
        .filter_map(|(prefix, a)| {
            let b = theirs.get(prefix)?;
            (a != b).then(|| format!("{}.N: {} and {}", escape(prefix), a.len(), b.len()))
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Data, "the parents are of different sizes: their depths differ")
        .file(&secondary.path)
        .expected(
            format!("the layers of `{}`", primary.path.display()),
            format!(
                "{} (primary and secondary):{}",
                match lines.len() {
                    1 => "1 place that counts differently".to_owned(),
                    count => format!("{count} places that count differently"),
                },
                capped(&lines)
            ),
        )
        .with_hint("merge only checkpoints of one architecture and size"))
}

/// Prefix before each number in a name → the numbers found there: `model.layers` → {0, 1, …}.
fn counts(names: &[String]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut counts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        let mut start = 0;
        for part in name.split('.') {
            if start > 0 && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
                counts.entry(&name[..start - 1]).or_default().insert(part);
            }
            start += part.len() + 1;
        }
    }
    counts
}
