//! Divides threads, memory and devices among the sweeps that run at once.

use serde::{Deserialize, Serialize};

use crate::batch::job::JobOptions;
use crate::engine::DeviceChoice;

/// What a sweep may take of the machine, where its options do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Worker threads at most.
    pub threads: usize,
    /// Sweeps that may use the same device at once, this one with them.
    pub sharers: usize,
}

/// The options of a merge that runs in one of `slots` slots, and its part: `threads` and memory are
/// divided unless the merge names them, and several devices are dealt out to the slots in turn.
pub(crate) fn share(
    options: &JobOptions,
    threads: usize,
    slot: usize,
    slots: usize,
) -> (JobOptions, Part) {
    let slots = slots.max(1);
    let mut shared = options.clone();
    let mut part = Part { threads: (threads / slots).max(1), sharers: slots };
    if !options.memory_is_named {
        shared.memory_bytes /= u64::try_from(slots).unwrap_or(1);
    }
    if let DeviceChoice::Cuda(devices) = &options.device {
        // One device each where there are more slots.
        let first = slot % devices.len().max(1);
        let own = devices.iter().skip(first).step_by(slots);
        shared.device = DeviceChoice::Cuda(own.copied().collect());
        part.sharers = slots.div_ceil(devices.len().max(1));
    }
    (shared, part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::job::tests::options;

    #[test]
    fn threads_and_memory_are_divided_unless_the_merge_names_them() {
        let shared = |options: &JobOptions, slot, slots| {
            let (shared, part) = share(options, 9, slot, slots);
            (shared.threads, part.threads, shared.memory_bytes)
        };
        assert_eq!(shared(&options(), 0, 2), (None, 4, 500));
        assert_eq!(shared(&options(), 3, 100), (None, 1, 10));
        let named = JobOptions { threads: Some(7), memory_is_named: true, ..options() };
        assert_eq!(shared(&named, 1, 4), (Some(7), 2, 1000));
    }

    #[test]
    fn the_sweeps_on_a_device_are_counted() {
        let sharers = |device: DeviceChoice, slots| {
            share(&JobOptions { device, ..options() }, 1, 0, slots).1.sharers
        };
        assert_eq!(sharers(DeviceChoice::Auto, 16), 16);
        assert_eq!(sharers(DeviceChoice::Cuda(vec![3]), 16), 16);
        assert_eq!(sharers(DeviceChoice::Cuda(vec![0, 1, 2]), 16), 6);
        assert_eq!(sharers(DeviceChoice::Cuda(vec![0, 1, 2]), 2), 1);
    }

    #[test]
    fn devices_go_round() {
        let shared = |device, slot, slots| {
            share(&JobOptions { device, ..options() }, 1, slot, slots).0.device
        };
        let cuda = |devices: &[usize]| DeviceChoice::Cuda(devices.to_vec());
        let three = |slot, slots| shared(cuda(&[0, 1, 2]), slot, slots);
        assert_eq!(three(0, 1), cuda(&[0, 1, 2]));
        assert_eq!(three(0, 2), cuda(&[0, 2]));
        assert_eq!(three(1, 2), cuda(&[1]));
        assert_eq!(three(2, 3), cuda(&[2]));
        assert_eq!(three(4, 5), cuda(&[1]));
        assert_eq!(shared(cuda(&[3, 5]), 1, 2), cuda(&[5]));
        for one in [DeviceChoice::Auto, DeviceChoice::Cpu, cuda(&[1])] {
            assert_eq!(shared(one.clone(), 1, 2), one);
        }
    }
}
