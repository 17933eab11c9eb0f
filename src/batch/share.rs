//! What a sweep gets of the machine, where several run at once.

use std::ffi::{OsStr, OsString};

/// The machine, to be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Worker threads in all.
    pub threads: usize,
    /// Bytes in all for tensors that are kept between the two passes.
    pub memory_bytes: u64,
}

/// The options of a merge that runs in one of `slots` slots: threads and memory are divided where the
/// merge does not name them, and of several devices each slot gets its own in turn.
pub(crate) fn share(
    arguments: &[OsString],
    machine: Machine,
    slot: usize,
    slots: usize,
) -> Vec<OsString> {
    let slots = slots.max(1);
    let device = |argument: &OsString| -> OsString {
        match value(argument, "--device=") {
            Some(devices) => {
                OsString::from(format!("--device={}", devices_of(devices, slot, slots)))
            }
            None => argument.clone(),
        }
    };
    let mut shared: Vec<OsString> = arguments.iter().map(device).collect();
    let named = |option: &str| arguments.iter().any(|argument| value(argument, option).is_some());
    if !named("--threads=") {
        shared.push(format!("--threads={}", (machine.threads / slots).max(1)).into());
    }
    if !named("--memory=") {
        let bytes = machine.memory_bytes / u64::try_from(slots).unwrap_or(1);
        shared.push(format!("--memory={bytes}").into());
    }
    shared
}

fn value<'a>(argument: &'a OsStr, option: &str) -> Option<&'a str> {
    argument.to_str()?.strip_prefix(option)
}

/// Every `slots`-th device from the slot's own; one device each where there are more slots.
fn devices_of(devices: &str, slot: usize, slots: usize) -> String {
    // `cuda:0,1` is `cuda:0,cuda:1`.
    let all: Vec<&str> =
        devices.split(',').map(|word| word.trim().trim_start_matches("cuda:")).collect();
    if all.len() < 2 {
        return devices.to_owned();
    }
    let first = slot % all.len();
    let own: Vec<&str> = match all.len() > slots {
        true => all.iter().skip(first).step_by(slots).copied().collect(),
        false => all.get(first).copied().into_iter().collect(),
    };
    format!("cuda:{}", own.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { threads: 9, memory_bytes: 1000 };

    fn shared(arguments: &[&str], slot: usize, slots: usize) -> Vec<OsString> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        share(&arguments, MACHINE, slot, slots)
    }

    #[test]
    fn threads_and_memory_are_divided_unless_the_merge_names_them() {
        assert_eq!(shared(&[], 0, 2), ["--threads=4", "--memory=500"]);
        assert_eq!(shared(&[], 3, 100), ["--threads=1", "--memory=10"]);
        let named = ["--threads=7", "--memory=1GB"];
        assert_eq!(shared(&named, 1, 4), named);
    }

    #[test]
    fn devices_go_round() {
        let device =
            |slot, slots| shared(&["--device=cuda:0,cuda:1,cuda:2"], slot, slots).remove(0);
        assert_eq!(device(0, 1), "--device=cuda:0,1,2");
        assert_eq!(device(0, 2), "--device=cuda:0,2");
        assert_eq!(device(1, 2), "--device=cuda:1");
        assert_eq!(device(2, 3), "--device=cuda:2");
        assert_eq!(device(4, 5), "--device=cuda:1");
        assert_eq!(shared(&["--device=cuda:3,5"], 1, 2)[0], "--device=cuda:5");
        for one in ["--device=cpu", "--device=cuda", "--device=cuda:1"] {
            assert_eq!(shared(&[one], 1, 2)[0], one);
        }
    }
}
