//! `merge` and `plan`: makes the children of two parents, or shows what would be made.

use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use crate::batch::Part;
use crate::cli::args::{MergeArgs, OutputArgs};
use crate::cli::interrupt::Interrupt;
use crate::cli::recipe::asked::{Asked, asked};
use crate::cli::{print, progress};
use crate::engine::{
    ComputeDevice, Interrupted, Job, Outcome, Prepared, Settings, expand_outputs, prepare, run,
};
use crate::error::{Error, Kind, Result};
use crate::merge::MergePlan;
use crate::tensor::{JsonPath, escape};

/// Shows what merge would do.
pub(crate) fn plan(args: &MergeArgs, output: &OutputArgs) -> Result<()> {
    args.device.check()?;
    let prepared = prepare(job(args)?)?;
    if output.json {
        return print::json(&plan_json(&prepared));
    }
    print::result(&print::plan_table(&prepared.plan, &place(&prepared)))?;
    if let Some(reason) = &prepared.side_files.tokenizer_reason {
        print::result(&format!("tokenizer: {reason}"))?;
    }
    if let Some(names) = &prepared.side_files.left_behind {
        print::result(&format!("left behind: {names}"))?;
    }
    prepared.plan.warnings.iter().for_each(print::warning);
    Ok(())
}

/// Merges.
pub(crate) fn merge(args: &MergeArgs, output: &OutputArgs) -> Result<()> {
    let started = Instant::now();
    if args.output.is_none() {
        return Err(Error::new(Kind::Usage, "no output is named")
            .with_hint("name the child's directory: -o OUT"));
    }
    let interrupt = Interrupt::listen();
    let devices = args.device.resolve()?;
    let prepared = prepare(Job { interrupted: interrupt.to_job(), ..job(args)? })?;
    if !output.quiet {
        prepared.plan.warnings.iter().for_each(print::warning);
    }
    if let Some(reason) = &prepared.side_files.tokenizer_reason {
        log::info!("tokenizer: {reason}");
    }
    if let Some(names) = &prepared.side_files.left_behind {
        log::info!("left behind: {names}");
    }
    carry_out(prepared, &devices, args, output, &interrupt, started)
}

/// Runs a prepared merge, with its progress and its summary.
pub(crate) fn carry_out(
    prepared: Prepared,
    devices: &[ComputeDevice],
    args: &MergeArgs,
    output: &OutputArgs,
    interrupt: &Interrupt,
    started: Instant,
) -> Result<()> {
    let interrupted = || interrupt.error();
    let whole = Part { threads: cores(), sharers: 1 };
    let settings = Settings {
        threads: threads(args.threads.map(usize::from), whole, devices.len()),
        memory_bytes: args.memory,
        devices,
        device_bytes: args.device_memory,
        device_sharers: whole.sharers,
        interrupted: &interrupted,
    };
    let reporter = progress::reporter(!output.quiet && !output.no_progress);
    let place = place(&prepared);
    let (plan, outcome) = run(prepared, &settings, reporter.as_ref(), started)?;
    if !output.quiet {
        outcome.report.warnings.iter().for_each(print::warning);
        if outcome.complete.len() == outcome.outputs.len() {
            print::line(&format!("{place}: complete already"));
        } else {
            print::line(&print::summary(&plan, &outcome.report, &place, outcome.seconds));
        }
    }
    if output.json { print::json(&merge_json(&plan, &outcome)) } else { Ok(()) }
}

/// More workers than this don't make a GPU faster: they saturate its link.
const WORKERS_PER_DEVICE: usize = 16;

/// Worker threads: as many as asked for, or as many as make sense.
pub(crate) fn threads(asked: Option<usize>, part: Part, n_devices: usize) -> usize {
    match (asked, n_devices) {
        (Some(threads), _) => threads,
        (None, 0) => part.threads,
        (None, devices) => {
            let most = devices * WORKERS_PER_DEVICE / part.sharers.max(1);
            part.threads.min(most).max(1)
        }
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What the arguments ask for.
pub(crate) fn job(args: &MergeArgs) -> Result<Job> {
    let Asked { primary, secondary, options } = asked(args)?;
    let outputs = match &args.output {
        Some(output) => expand_outputs(output, &options.children)?,
        None => Vec::new(),
    };
    Ok(Job {
        primary,
        secondary,
        outputs,
        options,
        overwrite: args.overwrite,
        resume: args.resume,
        fsync: !args.no_fsync,
        opening: (&args.strict).into(),
        interrupted: Interrupted::default(),
    })
}

/// The outputs, as the user wrote them.
pub(crate) fn place(prepared: &Prepared) -> String {
    let shown: Vec<String> = prepared
        .outputs
        .iter()
        .map(|output| format!("`{}`", escape(&output.to_string_lossy())))
        .collect();
    if shown.is_empty() { "no output named".to_owned() } else { shown.join(", ") }
}

fn plan_json(prepared: &Prepared) -> impl Serialize + use<> {
    json!({
        "plan": prepared.plan,
        "outputs": JsonPath::list(&prepared.outputs),
        "weight_bytes": prepared.weight_bytes,
        "tokenizer": prepared.side_files.tokenizer_reason,
        "small_files": prepared.side_files.names(),
        "left_behind": prepared.side_files.left_behind,
    })
}

fn merge_json(plan: &MergePlan, outcome: &Outcome) -> impl Serialize + use<> {
    json!({
        "outputs": JsonPath::list(&outcome.outputs),
        "complete_before": JsonPath::list(&outcome.complete),
        "seconds": outcome.seconds,
        "counts": outcome.report.counts(),
        "vocab": plan.vocab,
        "total_size": plan.total_size,
        "shards": plan.shards.len(),
        "devices": outcome.report.devices,
        "bytes_read": outcome.report.bytes_read,
        "bytes_written": outcome.report.bytes_written,
        "warnings": plan.warnings.iter().chain(&outcome.report.warnings).collect::<Vec<_>>(),
        "tensors": outcome.report.tensors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_bounded_by_device_over_all_merges_that_share_it() {
        let workers = |threads, sharers, devices| threads_of(None, threads, sharers, devices);
        fn threads_of(
            asked: Option<usize>,
            threads: usize,
            sharers: usize,
            devices: usize,
        ) -> usize {
            super::threads(asked, Part { threads, sharers }, devices)
        }
        assert_eq!(workers(224, 1, 0), 224);
        assert_eq!((workers(224, 1, 1), workers(224, 1, 8)), (16, 128));
        // batch --jobs 4 and --jobs 16 on 224 cores with one GPU.
        assert_eq!((workers(56, 4, 1), workers(14, 16, 1), workers(7, 32, 1)), (4, 1, 1));
        assert_eq!(threads_of(Some(40), 14, 16, 1), 40);
    }
}
