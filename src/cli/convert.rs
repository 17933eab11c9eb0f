//! `convert`: a model written anew without merging.

use std::time::Instant;

use serde_json::json;

use crate::cli::args::{ConvertArgs, OutputArgs};
use crate::cli::interrupt::Interrupt;
use crate::cli::merge::{cores, place};
use crate::cli::{print, progress};
use crate::engine::{Job, Settings, prepare_conversion, run};
use crate::error::Result;
use crate::tensor::JsonPath;

/// Bytes for tensors that must be in memory whole: compressed, big-endian or strided ones.
const MEMORY_BYTES: u64 = 64 << 20;

/// Writes the model anew.
pub(crate) fn convert(args: &ConvertArgs, output: &OutputArgs) -> Result<()> {
    let started = Instant::now();
    let interrupt = Interrupt::listen();
    let prepared = prepare_conversion(Job {
        primary: args.model.clone(),
        secondary: args.model.clone(),
        outputs: vec![args.output.clone()],
        options: args.into(),
        overwrite: args.overwrite,
        resume: args.resume,
        fsync: !args.no_fsync,
        opening: (&args.strict).into(),
        interrupted: interrupt.to_job(),
    })?;
    if !output.quiet {
        prepared.plan.warnings.iter().for_each(print::warning);
    }
    if let Some(names) = &prepared.side_files.left_behind {
        log::info!("left behind: {names}");
    }
    let interrupted = || interrupt.error();
    let settings = Settings {
        threads: args.threads.map_or_else(cores, usize::from),
        memory_bytes: MEMORY_BYTES,
        devices: &[],
        device_bytes: None,
        device_sharers: 1,
        interrupted: &interrupted,
    };
    let reporter = progress::named(!output.quiet && !output.no_progress, "converting");
    let place = place(&prepared);
    let (plan, outcome) = run(prepared, &settings, reporter.as_ref(), started)?;
    let complete = !outcome.complete.is_empty();
    if !output.quiet {
        outcome.report.warnings.iter().for_each(print::warning);
        print::line(&match complete {
            true => format!("{place}: complete already"),
            false => print::converted(&plan, &outcome.report, &place, outcome.seconds),
        });
    }
    if !output.json {
        return Ok(());
    }
    print::json(&json!({
        "outputs": JsonPath::list(&outcome.outputs),
        "complete_before": JsonPath::list(&outcome.complete),
        "seconds": outcome.seconds,
        "format": plan.format,
        "total_size": plan.total_size,
        "shards": plan.shards.len(),
        "bytes_read": outcome.report.bytes_read,
        "bytes_written": outcome.report.bytes_written,
        "warnings": plan.warnings.iter().chain(&outcome.report.warnings).collect::<Vec<_>>(),
        "tensors": outcome.report.tensors,
    }))
}
