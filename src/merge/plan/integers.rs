//! Refuses a child that would mostly consist of integers, which are copied from the primary, not
//! merged.

use crate::checkpoint::{Checkpoint, StorageEntry, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::names::buffers::is_buffer;
use crate::merge::plan::planned::PlannedStorage;
use crate::tensor::counted;

/// Refuses a child most of whose elements would be the primary's integers although the secondary's may
/// differ: quantised weights of a scheme that no name gives away.
///
/// # Errors
/// [`Kind::Data`] with the largest such tensor.
pub(crate) fn check_mostly_merged(
    [primary, secondary]: [&Checkpoint; 2],
    storages: &[PlannedStorage],
) -> Result<()> {
    let weights = || storages.iter().filter(|made| !is_buffer(&made.name, made.dtype, &made.shape));
    let copied = || weights().filter(|made| is_copied_unequal([primary, secondary], made));
    let sum = |of: &mut dyn Iterator<Item = &PlannedStorage>| {
        of.map(|made| made.numel).fold(0, u64::saturating_add)
    };
    let (lost, all) = (sum(&mut copied()), sum(&mut weights()));
    let Some(largest) = copied().max_by_key(|made| made.numel).filter(|_| lost > all / 2) else {
        return Ok(());
    };
    let found = format!(
        "{} in this and other tensors: {lost} of {} would be the primary's, unmerged",
        largest.dtype,
        counted(all, "element")
    );
    Err(Error::new(Kind::Data, "most of the child would not be merged")
        .file(&primary.path)
        .tensor(&largest.name)
        .expected("floating weights, or integers that are equal in both parents", found)
        .with_hint("integers can't be merged; where they are quantised weights, take the models that were quantised"))
}

/// Whether both parents have a tensor, not a floating one, and are not known to have the same values.
fn is_copied_unequal([primary, secondary]: [&Checkpoint; 2], made: &PlannedStorage) -> bool {
    if made.dtype.is_floating() {
        return false;
    }
    let (Some((a, a_in)), Some((b, b_in))) =
        (stored(primary, made.primary), stored(secondary, made.secondary))
    else {
        return false;
    };
    let sums = |storage: &StorageEntry| (storage.crc32, storage.record_bytes, storage.byte_order);
    // A model merged with itself: files without CRCs are told by their inode.
    let place = |parent: &Checkpoint, storage: &StorageEntry| {
        let identity = parent.files.get(storage.file)?.identity();
        Some((identity, storage.file_offset))
    };
    let one = place(primary, a_in);
    let same = one.is_some() && one == place(secondary, b_in);
    let equal_sums = a_in.crc32.is_some() && sums(a_in) == sums(b_in);
    let equal = (same || equal_sums) && a.layout == b.layout;
    !equal
}

/// A parent's tensor and its storage.
fn stored(parent: &Checkpoint, position: Option<usize>) -> Option<(&TensorEntry, &StorageEntry)> {
    let tensor = parent.inventory.tensors.get(position?)?;
    Some((tensor, parent.inventory.storages.get(tensor.storage)?))
}

#[cfg(test)]
mod tests {
    use crate::error::Kind;
    use crate::merge::headers::Headers;
    use crate::merge::{MergeOptions, plan};
    use crate::tensor::DType;

    #[test]
    fn a_child_of_the_primarys_integers_is_refused_where_they_may_differ() {
        let parent = |integers: u64| {
            let headers = Headers::new().f16("norm.weight", &[10]);
            headers.tensor("m.tape", DType::Int32, &[integers]).open()
        };
        let made = |integers| plan(&parent(integers), &parent(integers), &MergeOptions::default());
        assert!(made(10).is_ok());
        let error = made(11).expect_err("most is copied");
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("int32 in this and other tensors: 11 of 21 elements"));
        // The same bytes in both: nothing is lost.
        let equal = || {
            let mut parent = parent(11);
            parent.inventory.storages.iter_mut().for_each(|storage| storage.crc32 = Some(7));
            parent
        };
        assert!(plan(&equal(), &equal(), &MergeOptions::default()).is_ok());
        let mut other = equal();
        other.inventory.storages[1].crc32 = Some(8);
        assert!(plan(&equal(), &other, &MergeOptions::default()).is_err());
        // Masks and positions are no weights.
        let positions = || {
            let headers = Headers::new().f16("norm.weight", &[10]);
            headers.tensor("position_ids", DType::Int64, &[1, 512]).open()
        };
        assert!(plan(&positions(), &positions(), &MergeOptions::default()).is_ok());
    }
}
