//! A worker thread of a device: runs both passes over a span there, or on the CPU where the device
//! lacks the memory or has nothing to compute.

use std::ops::Range;

use crate::engine::cpu::worker::CpuWorker;
use crate::engine::device::passes::Passes;
use crate::engine::device::share::Share;
use crate::engine::device::trouble::{Attempt, Trouble};
use crate::engine::devices::ComputeDevice;
use crate::engine::read::slot::{Keep, Slot};
use crate::engine::task::errors::changed;
use crate::engine::task::tensor_task::{Decision, MadeOn, Scan, Task, Written};
use crate::engine::task::worker::{Settle, Worker};
use crate::engine::write::children::Children;
use crate::error::{Error, Kind, Result};
use crate::merge::MergeOptions;

/// A worker thread of a device.
pub(crate) struct DeviceWorker<'j> {
    /// For tensors that are merged from both parents.
    passes: Passes<'j>,
    /// For tensors that are carried, and those that the device has no memory for.
    cpu: CpuWorker<'j>,
    device: &'j ComputeDevice,
    /// The device's position in the settings' list.
    position: usize,
}

impl<'j> DeviceWorker<'j> {
    pub(crate) fn new(
        options: &'j MergeOptions,
        to: (&'j Children<'j>, &'j Keep),
        device: &'j ComputeDevice,
        position: usize,
        share: &Share,
    ) -> Result<DeviceWorker<'j>> {
        let passes = Passes::new(options, to.0, device, share);
        Ok(DeviceWorker {
            passes: passes.map_err(|trouble| error(trouble, device))?,
            cpu: CpuWorker::new(options, to)?,
            device,
            position,
        })
    }

    /// Tries on the device, with pieces halved whenever its memory is full; `None` when they can't
    /// be halved any more, which leaves the CPU.
    fn attempt<T>(
        &mut self,
        task: &Task<'_>,
        mut work: impl FnMut(&mut Passes<'j>) -> Attempt<T>,
    ) -> Result<Option<T>> {
        loop {
            match work(&mut self.passes) {
                Ok(done) => return Ok(Some(done)),
                Err(Trouble::OutOfMemory) => {}
                Err(trouble) => return Err(error(trouble, self.device)),
            }
            if !self.passes.halve() {
                let name = &self.device.name;
                log::info!("{name} is out of memory: `{}` goes to the CPU", task.plan.name);
                return Ok(None);
            }
        }
    }

    /// Whether the device has anything to do for this tensor.
    fn takes(task: &Task<'_>) -> bool {
        task.merges() && task.primary.is_some() && task.secondary.is_some()
    }

    fn made(&self, written: Written) -> Written {
        Written { made_on: MadeOn::Device(self.position), ..written }
    }

    fn write_on_cpu(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        span: Range<u64>,
        decision: Option<&Decision>,
    ) -> Result<Written> {
        let written = self.cpu.write(task, storage, span, decision, Vec::new())?;
        Ok(Written { made_on: MadeOn::CpuInsteadOf(self.position), ..written })
    }
}

impl Worker for DeviceWorker<'_> {
    fn scan(&mut self, task: &Task<'_>, span: Range<u64>) -> Result<Scan> {
        if !Self::takes(task) {
            return self.cpu.scan(task, span);
        }
        match self.attempt(task, |passes| passes.scan_span(task, &span, false))? {
            Some(scan) => Ok(scan),
            None => self.cpu.scan(task, span),
        }
    }

    fn write(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        span: Range<u64>,
        decision: Option<&Decision>,
        kept: Vec<Slot>,
    ) -> Result<Written> {
        if !Self::takes(task) {
            return self.cpu.write(task, storage, span, decision, kept);
        }
        let attempt = |passes: &mut Passes<'_>| passes.write_span(task, storage, &span, decision);
        match self.attempt(task, attempt)? {
            Some(written) => Ok(self.made(written)),
            None => self.write_on_cpu(task, storage, span, decision),
        }
    }

    fn scan_and_write(
        &mut self,
        task: &Task<'_>,
        storage: usize,
        settle: &mut Settle<'_>,
    ) -> Result<Written> {
        if !Self::takes(task) {
            return self.cpu.scan_and_write(task, storage, settle);
        }
        let span = 0..task.plan.numel;
        let scan = self.attempt(task, |passes| passes.scan_span(task, &span, true))?;
        let on_device = scan.is_some();
        let scan = match scan {
            Some(scan) => scan,
            None => self.cpu.scan(task, span.clone())?,
        };
        let decision = settle(&scan)?;
        let attempt =
            |passes: &mut Passes<'_>| passes.write_span(task, storage, &span, Some(&decision));
        let written = if on_device { self.attempt(task, attempt)? } else { None };
        let mut written = match written {
            Some(written) => self.made(written),
            None => self.write_on_cpu(task, storage, span, Some(&decision))?,
        };
        // What was kept on the device was not read again.
        let read_again = written.read.iter().any(|crc| crc.bytes > 0);
        if read_again && written.read != scan.read {
            return Err(changed(task));
        }
        written.sums = scan.sums;
        written.read = scan.read;
        Ok(written)
    }

    fn count_side(&mut self, task: &Task<'_>, lane: usize) -> Result<(u64, Option<u64>)> {
        self.cpu.count_side(task, lane)
    }
}

fn error(trouble: Trouble, device: &ComputeDevice) -> Error {
    match trouble {
        Trouble::Error(error) => error,
        Trouble::OutOfMemory => {
            Error::new(Kind::Resource, format!("{} is out of memory", device.name))
        }
    }
}
