//! Stands in for GPUs in tests on machines without one: the CPU computes, with the memory and the
//! failures that a test asks for.
//!
//! [`DEVICES`] is a list of words: `devices=2,memory=64MiB,oom=3,sticky=5,wrong=1`. With
//! it set no GPU is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tch::TchError;

use crate::error::{Error, Kind, Result};
use crate::format::parse_size;

/// The variable that asks for stand-ins.
const DEVICES: &str = "LLM_SLERP_MERGE_TEST_DEVICES";

/// The variable that asks, as `none`, that nothing is written: what is left is reading and merging.
const SINK: &str = "LLM_SLERP_MERGE_TEST_SINK";

/// Whether this build has stand-ins: only builds for tests do.
const ENABLED: bool = cfg!(any(debug_assertions, feature = "test-devices"));

/// Failures to inject, counted over all stand-ins of a process; 0 means never.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// The first allocation to fail, counted from 1.
    oom_from: u64,
    /// How many in a row.
    oom_count: u64,
    /// The upload that breaks the device.
    sticky: u64,
    /// The download whose last byte is wrong.
    wrong: u64,
    /// The upload that never ends.
    hang: u64,
    /// No worker gets a stream of its own.
    no_stream: bool,
    /// No memory can be page-locked.
    pageable: bool,
    allocations: AtomicU64,
    uploads: AtomicU64,
    downloads: AtomicU64,
}

impl Faults {
    /// Counts an allocation; an error like torch's own where it is to fail.
    pub(crate) fn allocate(&self) -> std::result::Result<(), TchError> {
        let now = self.allocations.fetch_add(1, Ordering::Relaxed) + 1;
        if self.oom_from > 0 && now >= self.oom_from && now - self.oom_from < self.oom_count {
            return Err(torch_says("CUDA out of memory. Tried to allocate 2.00 GiB (injected)"));
        }
        Ok(())
    }

    /// Counts an upload.
    pub(crate) fn upload(&self) -> std::result::Result<(), TchError> {
        let now = self.uploads.fetch_add(1, Ordering::Relaxed) + 1;
        if now == self.hang {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        if now == self.sticky {
            let text = "CUDA error: an illegal memory access was encountered (injected)";
            return Err(torch_says(text));
        }
        Ok(())
    }

    /// What CUDA says where it has no stream for a worker.
    pub(crate) fn stream(&self) -> Result<()> {
        if self.no_stream {
            return Err(Error::new(Kind::Resource, "CUDA could not make a stream (injected)"));
        }
        Ok(())
    }

    /// What CUDA says where memory can't be page-locked.
    pub(crate) fn lock_pages(&self) -> std::result::Result<(), TchError> {
        if self.pageable {
            return Err(torch_says("CUDA error: OS call failed (injected)"));
        }
        Ok(())
    }

    /// Counts a download; true where it must arrive wrong.
    pub(crate) fn download(&self) -> bool {
        self.downloads.fetch_add(1, Ordering::Relaxed) + 1 == self.wrong
    }
}

fn torch_says(text: &str) -> TchError {
    TchError::Torch(text.to_owned())
}

/// Whether nothing is to be written. There is no child then, and the merge ends with an error.
pub(crate) fn writes_nothing() -> bool {
    ENABLED && std::env::var_os(SINK).is_some_and(|value| value == "none")
}

/// The error after a merge that was only to be measured.
pub(crate) fn wrote_nothing() -> Error {
    Error::new(Kind::Usage, format!("nothing was written, as {SINK}=none asks: there is no child"))
}

/// Devices that are not there, as a test asks for them.
#[derive(Debug)]
pub(crate) struct StandIns {
    pub(crate) count: u64,
    /// Bytes of memory of each.
    pub(crate) memory: u64,
    pub(crate) faults: Arc<Faults>,
}

impl StandIns {
    /// Those that the environment asks for.
    ///
    /// # Errors
    /// [`Kind::Usage`] for words that are not known.
    pub(crate) fn of_environment() -> Result<Option<StandIns>> {
        if !ENABLED {
            return Ok(None);
        }
        match std::env::var(DEVICES) {
            Ok(text) => StandIns::parse(&text).map(Some).map_err(|word| {
                Error::new(Kind::Usage, format!("{DEVICES} is for tests only"))
                    .expected("devices=N,memory=SIZE,oom=N[xM],sticky=N,wrong=N,hang=N,stream=none,pinned=none", word)
            }),
            Err(_) => Ok(None),
        }
    }

    fn parse(text: &str) -> std::result::Result<StandIns, String> {
        let mut count = 1;
        let mut memory = 1 << 30;
        let mut faults = Faults::default();
        for word in text.split(',') {
            let wrong = || word.to_owned();
            let (name, value) = word.split_once('=').ok_or_else(wrong)?;
            let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
            match name {
                "devices" => count = number(value)?,
                "memory" => memory = parse_size(value).map_err(|_| wrong())?,
                "oom" => {
                    let (from, times) = value.split_once('x').unwrap_or((value, "1"));
                    (faults.oom_from, faults.oom_count) = (number(from)?, number(times)?);
                }
                "sticky" => faults.sticky = number(value)?,
                "wrong" => faults.wrong = number(value)?,
                "hang" => faults.hang = number(value)?,
                "stream" => faults.no_stream = value == "none",
                "pinned" => faults.pageable = value == "none",
                _ => return Err(wrong()),
            }
        }
        Ok(StandIns { count, memory, faults: Arc::new(faults) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_come_when_they_were_asked_for() {
        let text = "devices=2,memory=1MiB,oom=2x2,sticky=2,wrong=1";
        let StandIns { count, memory, faults } = StandIns::parse(text).unwrap();
        assert_eq!((count, memory), (2, 1 << 20));
        let failed: Vec<bool> = (0..5).map(|_| faults.allocate().is_err()).collect();
        assert_eq!(failed, [false, true, true, false, false]);
        assert!(faults.upload().is_ok() && faults.upload().is_err() && faults.upload().is_ok());
        assert!(faults.download() && !faults.download());
        for text in ["devices", "cpu=1", "oom=x"] {
            assert!(StandIns::parse(text).is_err(), "{text}");
        }
    }
}
