//! Decides how many workers share a device, and how much of its memory each may use.

use crate::engine::device::memory::{FEWEST_PIECES, MOST_PIECES, Places};
use crate::engine::settings::Settings;
use crate::engine::task::tensor_task::Task;
use crate::tensor::human_bytes;

/// A tensor that is kept on a device between the passes is the work of one worker. One that is more than
/// a worker's part of the merge, and more than this many bytes, is copied up twice instead, by several
/// workers, so that the others don't wait for one at the end.
const KEEP_ALWAYS_BYTES: u64 = 256 << 20;

/// No larger tensor is kept, for an interrupt waits for the unit that a worker is at.
const KEEP_MOST_BYTES: u64 = 2 << 30;

/// Workers and what each may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Worker threads; thread n works for device n modulo the number of devices.
    pub(crate) threads: usize,
    /// Device memory of each worker, in bytes.
    pub(crate) block_bytes: usize,
    /// Pieces in a chunk.
    pub(crate) pieces: usize,
    /// Bytes of the widest element that goes over the link.
    pub(crate) item: usize,
}

impl Share {
    /// As the settings say; the device that is fullest counts.
    pub(crate) fn new(tasks: &[Task<'_>], settings: &Settings<'_>) -> Share {
        let (devices, threads) = (settings.devices, settings.threads.max(1));
        let merged = || tasks.iter().filter(|task| task.merges());
        let items = merged().flat_map(|task| {
            let sides = task.sides().into_iter().flatten().map(|side| side.tensor.dtype);
            sides.chain([task.plan.dtype]).map(|dtype| dtype.size_bytes()).collect::<Vec<_>>()
        });
        let item = usize::try_from(items.max().unwrap_or(1)).unwrap_or(8);
        let all = merged().map(Task::kept_bytes).fold(0, u64::saturating_add);
        let most = most_kept(all, threads);
        let kept = merged().map(Task::kept_bytes).filter(|bytes| *bytes <= most);
        let largest = kept.max().unwrap_or(0);
        let free = devices.iter().map(|device| device.free_bytes).min().unwrap_or(0);
        let bytes = bytes_of(free, settings.device_bytes, settings.device_sharers);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let share = Share::of(bytes, largest, item, threads, devices.len());
        let (workers, each) = (share.threads, human_bytes(share.block_bytes as u64));
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        log::info!("workers on {}: {workers}, each with {each} of memory", names.join(", "));
        share
    }

    /// `largest` is the largest tensor that is to be kept.
    fn of(bytes: usize, largest: u64, item: usize, threads: usize, devices: usize) -> Share {
        let devices = devices.max(1);
        let fewest = Places::new(FEWEST_PIECES, item).kept;
        let per_device = threads.div_ceil(devices).min(bytes / fewest).max(1);
        let share = bytes / per_device;
        let mut pieces = MOST_PIECES;
        while pieces > FEWEST_PIECES && Places::new(pieces, item).kept > share {
            pieces /= 2;
        }
        let scratch = Places::new(pieces, item).kept;
        // Two sides, each rounded up in the block.
        let largest = usize::try_from(largest).unwrap_or(usize::MAX).saturating_add(2048);
        let kept = share.saturating_sub(scratch).min(largest);
        Share { threads: per_device * devices, block_bytes: scratch + kept, pieces, item }
    }

    /// The most bytes of a chunk.
    pub(crate) fn chunk_bytes(&self) -> usize {
        Places::new(self.pieces, self.item).chunk() * self.item
    }

    /// Bytes of both sides of a tensor that a worker can keep between the passes.
    pub(crate) fn keep_bytes(&self) -> u64 {
        let kept = self.block_bytes - Places::new(self.pieces, self.item).kept;
        u64::try_from(kept.saturating_sub(2048)).unwrap_or(u64::MAX)
    }
}

/// What of a device's free memory a merge takes, of which so many may run on it at once: half of its
/// part, or what is asked for as far as its part reaches.
fn bytes_of(free: u64, asked: Option<u64>, sharers: usize) -> u64 {
    let part = free / u64::try_from(sharers.max(1)).unwrap_or(u64::MAX);
    match asked {
        Some(bytes) if sharers > 1 => bytes.min(part),
        Some(bytes) => bytes,
        None => part / 2,
    }
}

/// The largest tensor that is kept, where all merged ones have so many bytes.
fn most_kept(all: u64, threads: usize) -> u64 {
    let workers = u64::try_from(threads.max(1)).unwrap_or(u64::MAX);
    (all / workers).clamp(KEEP_ALWAYS_BYTES, KEEP_MOST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worker_is_left_with_more_than_its_part_but_what_is_small() {
        let gb = 1_000_000_000;
        // 0.5 billion elements in float16, both sides; 7 billion; 70 billion.
        assert_eq!(most_kept(2 * gb, 16), KEEP_ALWAYS_BYTES);
        assert_eq!(most_kept(28 * gb, 16), 1_750_000_000);
        assert_eq!(most_kept(280 * gb, 16), KEEP_MOST_BYTES);
        assert_eq!(most_kept(2 * gb, 1), 2 * gb);
    }

    #[test]
    fn a_device_is_never_asked_for_more_than_its_share() {
        let mib = 1 << 20;
        for bytes in [16 * mib, 64 * mib, 1000 * mib, 64_000 * mib] {
            for item in [1, 2, 4, 8] {
                for (threads, devices) in [(1, 1), (7, 2), (224, 8)] {
                    let share = Share::of(bytes, 1 << 32, item, threads, devices);
                    let per_device = share.threads / devices;
                    assert!(share.block_bytes * per_device <= bytes, "{share:?}");
                    assert!(share.threads >= devices && share.pieces >= FEWEST_PIECES, "{share:?}");
                    assert!(share.threads <= threads.next_multiple_of(devices), "{share:?}");
                }
            }
        }
    }

    #[test]
    fn merges_that_share_a_device_divide_what_is_free() {
        assert_eq!(bytes_of(1600, None, 1), 800);
        assert_eq!((bytes_of(1600, None, 16), bytes_of(1600, Some(70), 16)), (50, 70));
        // More than there is may be asked for, but not of what is another's.
        assert_eq!((bytes_of(1600, Some(2000), 1), bytes_of(1600, Some(2000), 16)), (2000, 100));
    }

    #[test]
    fn a_small_model_takes_no_more_than_it_needs() {
        let share = Share::of(1 << 36, 1000, 2, 4, 1);
        assert_eq!(share.pieces, MOST_PIECES);
        assert_eq!(share.block_bytes, Places::new(MOST_PIECES, 2).kept + 3048);
        assert_eq!(share.keep_bytes(), 1000);
    }
}
