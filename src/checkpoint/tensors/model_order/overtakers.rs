//! Works out which shards were numbered out of turn.
//!
//! A tensor larger than the limit gets a shard of its own, which is numbered before the one being
//! filled ([`crate::checkpoint::child::split`]). The limit isn't in the files, but they bound it:
//!
//! ```text
//! limit >= the bytes of each shard that was filled
//! limit <  the bytes of each shard that overtook
//! limit <  the bytes of a filled shard and of the first tensor of the next filled one
//! ```
//!
//! A shard of several tensors was filled, and so was the last one, unless all overtook. A shard of
//! one tensor may be either; every limit that contradicts nothing gives a hypothesis.

/// Size of one file as the split counted it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShardSize {
    /// Distinct storages.
    pub(super) storages: usize,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Bytes of the first storage.
    pub(super) first_bytes: u64,
}

/// One way in which the files may have been filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hypothesis {
    /// Per file, whether it was numbered out of turn.
    pub(super) overtook: Vec<bool>,
    /// Whether a limit explains it.
    pub(super) possible: bool,
}

/// Limits tried, lowest first; models have a handful of sizes.
const MOST_LIMITS: usize = 64;

/// Hypotheses returned; each costs a walk over all names.
const MOST_HYPOTHESES: usize = 4;

/// The hypothesis that no shard overtook, and every other one that the sizes allow. If none is
/// possible, also the one in which each shard of one tensor overtook that is larger than all shards
/// of several.
pub(super) fn hypotheses(shards: &[ShardSize]) -> Vec<Hypothesis> {
    let several = |shard: &&ShardSize| shard.storages > 1;
    let floor = shards.iter().filter(several).map(|shard| shard.bytes).max();
    let mut limits: Vec<u64> = shards
        .iter()
        .filter(|shard| shard.storages <= 1 && floor.is_none_or(|floor| shard.bytes > floor))
        .map(|shard| shard.bytes)
        .collect();
    limits.sort_unstable();
    limits.dedup();
    // With the largest size as the limit nothing overtakes: that is the first hypothesis.
    limits.pop();
    limits.splice(0..0, floor);
    let mut hypotheses = vec![in_turn(shards)];
    for limit in limits.iter().take(MOST_LIMITS) {
        let hypothesis = under_limit(shards, *limit);
        if hypothesis.possible
            && hypothesis.overtook.contains(&true)
            && hypotheses.len() < MOST_HYPOTHESES
        {
            hypotheses.push(hypothesis);
        }
    }
    if hypotheses.iter().all(|hypothesis| !hypothesis.possible)
        && let Some(floor) = floor
    {
        let mut hypothesis = under_limit(shards, floor);
        if let Some(last) = hypothesis.overtook.last_mut() {
            *last = false;
        }
        hypotheses.push(hypothesis);
    }
    hypotheses
}

fn in_turn(shards: &[ShardSize]) -> Hypothesis {
    under_limit(shards, u64::MAX)
}

/// The hypothesis in which shards of one storage larger than `limit` overtook.
fn under_limit(shards: &[ShardSize], limit: u64) -> Hypothesis {
    let overtook: Vec<bool> =
        shards.iter().map(|shard| shard.storages <= 1 && shard.bytes > limit).collect();
    let filled: Vec<&ShardSize> =
        shards.iter().zip(&overtook).filter(|(_, overtook)| !**overtook).map(|(s, _)| s).collect();
    let at_least = filled.iter().map(|shard| shard.bytes).max();
    let closed = filled.windows(2).map(|pair| pair[0].bytes.saturating_add(pair[1].first_bytes));
    let overtakers = shards
        .iter()
        .zip(&overtook)
        .filter(|(_, overtook)| **overtook)
        .map(|(shard, _)| shard.bytes);
    let below = closed.chain(overtakers).min();
    let fits = match (at_least, below) {
        (Some(at_least), Some(below)) => at_least < below,
        _ => true,
    };
    let last_was_filled = overtook.last() == Some(&false) || filled.is_empty();
    Hypothesis { overtook, possible: fits && last_was_filled }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards of tensors of these bytes.
    fn shards(files: &[&[u64]]) -> Vec<ShardSize> {
        let shard = |file: &&[u64]| ShardSize {
            storages: file.len(),
            bytes: file.iter().sum(),
            first_bytes: file[0],
        };
        files.iter().map(shard).collect()
    }

    fn possible(files: &[&[u64]]) -> Vec<Vec<bool>> {
        let hypotheses = hypotheses(&shards(files)).into_iter();
        hypotheses
            .filter(|hypothesis| hypothesis.possible)
            .map(|hypothesis| hypothesis.overtook)
            .collect()
    }

    #[test]
    fn a_shard_that_no_limit_explains_was_closed_out_of_turn() {
        // In turn, the limit would be 90 at least, and 10 + 16 would not have closed the first.
        assert_eq!(possible(&[&[5, 5], &[16, 1], &[90], &[20, 1]]), [[false, false, true, false]]);
        // A limit of 90 explains that all were in turn, one of 40 to 59 that two overtook.
        assert_eq!(
            possible(&[&[90], &[20, 20], &[90], &[20, 1]]),
            [[false; 4], [true, false, true, false]]
        );
    }

    #[test]
    fn the_last_shard_was_filled() {
        assert_eq!(possible(&[&[20, 20], &[90]]), [vec![false, false]]);
        assert_eq!(possible(&[&[90], &[20, 20], &[30]]), [[true, false, false]]);
    }

    #[test]
    fn shards_of_one_tensor_each_may_all_have_been_too_large() {
        assert_eq!(possible(&[&[5], &[5], &[5]]), [[false; 3]]);
        assert_eq!(possible(&[&[5], &[7]]), [[false; 2]]);
        assert_eq!(possible(&[&[7], &[5]]), [[false; 2], [true, false]]);
    }

    #[test]
    fn what_no_limit_explains_may_still_have_overtaken() {
        let hypotheses = hypotheses(&shards(&[&[5, 5], &[90], &[1, 1], &[1, 1]]));
        assert!(hypotheses.iter().all(|hypothesis| !hypothesis.possible));
        assert_eq!(hypotheses[1].overtook, [false, true, false, false]);
    }

    #[test]
    fn the_true_story_is_among_those_told() {
        let mut chance = crate::tensor::chance(7);
        for _ in 0..2000 {
            let limit = chance(60) + 1;
            let (mut files, mut open, mut overtook) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..chance(12) + 2 {
                let size = if chance(3) == 0 { chance(99) } else { chance(20) } + 1;
                if size > limit {
                    files.push(vec![size]);
                    overtook.push(true);
                    continue;
                }
                if open.iter().sum::<u64>() + size > limit {
                    files.push(std::mem::take(&mut open));
                    overtook.push(false);
                }
                open.push(size);
            }
            if !open.is_empty() {
                files.push(open);
                overtook.push(false);
            }
            let files: Vec<&[u64]> = files.iter().map(Vec::as_slice).collect();
            let made = hypotheses(&shards(&files));
            let in_file_order = overtook.iter().all(|overtook| *overtook);
            let enough = made.len() >= MOST_HYPOTHESES;
            let found = made
                .iter()
                .any(|hypothesis| hypothesis.possible && hypothesis.overtook == overtook);
            assert!(found || in_file_order || enough, "{files:?} at {limit}");
        }
    }
}
