//! `batch`: plans the merges of a manifest, runs them and prints the results.

mod options;
mod sweep;
mod watch;

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::process::Signal;
use serde_json::json;

use crate::batch::{
    BatchPlan, Finding, JobResult, Manifest, OptionSpec, PlannedJob, Record, RunSettings,
    Selection, Status, plan, run, schema,
};
use crate::cli::args::{BatchArgs, Index, OutputArgs};
use crate::cli::interrupt::{self, Interrupt};
use crate::cli::{merge, print};
use crate::error::{Error, Kind, Result};
use crate::tensor::{counted, escape, human_bytes, listed};

pub(crate) use sweep::sweep;
use watch::Show;

/// Variables in which schedulers give the index of a task, in the order of preference.
const INDEX_VARIABLES: [&str; 2] = ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"];

/// Exit code where some merge failed.
const SOME_FAILED: u8 = 1;

/// Makes the merges of a manifest.
pub(crate) fn batch(args: &BatchArgs, output: &OutputArgs) -> Result<ExitCode> {
    let specs = options::specs();
    if args.schema {
        return print::json(&schema(&specs)).map(|()| ExitCode::SUCCESS);
    }
    let manifest = manifest(args, &specs)?;
    let count = manifest.entries.len();
    if args.count {
        return print::result(&count.to_string()).map(|()| ExitCode::SUCCESS);
    }
    let selection = selection(args.index, count)?;
    let interrupt = Interrupt::listen();
    let plan = plan(manifest, selection, &options::parse, &interrupt.to_job());
    let stopped = |kind| matches!(kind, Kind::Interrupted | Kind::Terminated);
    if plan.findings.iter().any(|finding| stopped(finding.error.kind()))
        && let Some(error) = interrupt.error()
    {
        return Err(error);
    }
    let labels: HashMap<usize, String> = labels(&plan);
    plan.findings.iter().for_each(|finding| say(finding, &labels));
    let wrong = plan.findings.iter().any(|finding| finding.error.kind() == Kind::Usage);
    if args.dry_run || (!plan.findings.is_empty() && !args.keep_going) {
        let results = results_without_run(&plan);
        if args.dry_run && !output.quiet {
            print::line(&table(&results, &labels));
            print::line(&forecast(&plan));
        }
        if !plan.findings.is_empty() && !output.quiet {
            let some = if args.dry_run { "" } else { "; nothing was merged" };
            let all = counted(count as u64, "merge");
            print::line(&format!("{} of {all} can't be made{some}", plan.refused.len()));
            if !args.dry_run && !plan.jobs.is_empty() {
                print::line("hint: --keep-going makes the others");
            }
        }
        return conclude(&results, output, selection, wrong);
    }
    let record = args.record.as_deref().map(Record::open).transpose()?;
    let slots = usize::from(args.jobs);
    let show = Show::new(output, slots, labels.clone(), record);
    plan.refused.iter().for_each(|result| show.refused(result));
    let settings = RunSettings {
        slots,
        fail_fast: args.fail_fast,
        command: &|| command(output),
        threads: args.threads.map_or_else(merge::cores, usize::from),
        signal: &|| interrupt.error().and_then(|error| signal(error.kind())),
    };
    let mut results = run(&plan.jobs, &settings, &show);
    show.end();
    results.extend(plan.refused);
    results.sort_by_key(|result| result.job);
    if !output.quiet {
        print::line(&table(&results, &labels));
    }
    let code = conclude(&results, output, selection, false)?;
    if let Some(error) = interrupt.error() {
        interrupt::reraise(error.kind());
    }
    Ok(code)
}

/// The manifest that is named, or that of the recipes that are.
fn manifest(args: &BatchArgs, specs: &[OptionSpec]) -> Result<Manifest> {
    let is_recipe = |path: &&PathBuf| {
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        extension.is_some_and(|extension| extension == "yml" || extension == "yaml")
    };
    let recipes = args.manifests.iter().filter(is_recipe).count();
    match (args.manifests.as_slice(), recipes, &args.output) {
        ([path], 0, None) => Manifest::read(path, specs),
        (_, 0, Some(_)) => Err(Error::new(Kind::Usage, "--output stands beside a manifest")
            .with_hint(
                "a manifest names each child's directory: `\"output\": \"children/{name}\"`",
            )),
        (_, 0, None) => Err(Error::new(Kind::Usage, "more than one manifest")
            .with_hint("one batch has one manifest, or as many recipes (.yml, .yaml) as you like")),
        (all, count, _) if count < all.len() => {
            Err(Error::new(Kind::Usage, "a manifest beside recipes")
                .with_hint("name the recipes in the manifest: `\"recipe\": \"x.yml\"`"))
        }
        (_, _, None) => Err(Error::new(Kind::Usage, "no output is named")
            .with_hint("name the children's directories: -o 'children/{name}'")),
        (all, _, Some(output)) => {
            let merge = |path: &PathBuf| {
                let no_text = || Error::new(Kind::Usage, "a recipe's path is no text").file(path);
                Ok(json!({ "recipe": path.to_str().ok_or_else(no_text)?, "output": output }))
            };
            let merges = all.iter().map(merge).collect::<Result<Vec<_>>>()?;
            Manifest::parse(&json!({ "merges": merges }).to_string(), Path::new(""), specs)
        }
    }
}

/// Prints the results of `--json`, and returns the exit code.
fn conclude(
    results: &[JobResult],
    output: &OutputArgs,
    selection: Selection,
    wrong: bool,
) -> Result<ExitCode> {
    if output.json {
        print::json(&json!({ "jobs": results }))?;
    }
    let bad: Vec<&JobResult> = results.iter().filter(|result| is_bad(result)).collect();
    Ok(ExitCode::from(match (bad.as_slice(), selection) {
        ([], _) => 0,
        (_, _) if wrong => Kind::Usage.exit_code(),
        ([one, ..], Selection::One(_)) => {
            one.errors.first().map_or(SOME_FAILED, |failure| failure.exit_code)
        }
        _ => SOME_FAILED,
    }))
}

fn is_bad(result: &JobResult) -> bool {
    match result.result {
        Status::Merged | Status::Present => false,
        Status::NotRun => !result.errors.is_empty(),
        Status::Failed | Status::Refused => true,
    }
}

/// Which merges run; the index may come from the scheduler's environment.
fn selection(index: Option<Index>, count: usize) -> Result<Selection> {
    let index = match index {
        None => return Ok(Selection::All),
        Some(Index::At(index)) => index,
        Some(Index::Auto) => from_environment()?,
    };
    if index < count {
        return Ok(Selection::One(index));
    }
    Err(Error::new(Kind::Usage, "no such merge")
        .expected(format!("an index below {count}, the number of merges"), index.to_string()))
}

fn from_environment() -> Result<usize> {
    for name in INDEX_VARIABLES {
        if let Some(value) = std::env::var_os(name) {
            return value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
                Error::new(Kind::Usage, format!("{name} is wrong"))
                    .expected("a whole number", escape(&value.to_string_lossy()))
            });
        }
    }
    Err(Error::new(Kind::Usage, "no index in the environment")
        .expected(INDEX_VARIABLES.join(" or "), "neither"))
}

/// The command that runs this program again, for one sweep.
fn command(output: &OutputArgs) -> Command {
    // The running binary itself, even where an update has replaced it on disk.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(env!("CARGO_PKG_NAME")).arg("sweep");
    if output.quiet {
        command.arg("--quiet");
    }
    (0..output.verbose).for_each(|_| {
        command.arg("--verbose");
    });
    command
}

fn signal(kind: Kind) -> Option<Signal> {
    match kind {
        Kind::Interrupted => Some(Signal::INT),
        Kind::Terminated => Some(Signal::TERM),
        _ => None,
    }
}

/// What each merge is called in messages: its position, and its name where it has one.
fn labels(plan: &BatchPlan) -> HashMap<usize, String> {
    let jobs = plan.jobs.iter().map(|job| (job.index, &job.name));
    let all = jobs.chain(plan.refused.iter().map(|result| (result.job, &result.name)));
    all.map(|(index, name)| {
        let label = match name {
            Some(name) => format!("{index} {}", escape(name)),
            None => index.to_string(),
        };
        (index, label)
    })
    .collect()
}

fn say(finding: &Finding, labels: &HashMap<usize, String>) {
    let of = |job: &usize| labels.get(job).cloned().unwrap_or_else(|| job.to_string());
    let jobs = listed(finding.jobs.iter().map(of), 8);
    let word = if finding.jobs.len() == 1 { "merge" } else { "merges" };
    print::line(&format!("error: {word} {jobs}: {}", finding.error));
    if let Some(hint) = finding.error.hint() {
        print::line(&format!("hint: {hint}"));
    }
}

/// The result of each merge where none is run.
fn results_without_run(plan: &BatchPlan) -> Vec<JobResult> {
    let planned = |job: &PlannedJob| {
        let present = job.children.iter().all(|child| child.present);
        let mut result = job.result(if present { Status::Present } else { Status::NotRun });
        let own = plan.findings.iter().filter(|finding| finding.jobs.contains(&job.index));
        result.errors = own.map(|finding| (&finding.error).into()).collect();
        result
    };
    let mut results: Vec<JobResult> = plan.jobs.iter().map(planned).collect();
    results.extend(plan.refused.iter().cloned());
    results.sort_by_key(|result| result.job);
    results
}

/// What a run would make, in one line.
fn forecast(plan: &BatchPlan) -> String {
    let children = plan.jobs.iter().flat_map(|job| &job.children).filter(|child| !child.present);
    let bytes = children.clone().map(|child| child.bytes).fold(0, u64::saturating_add);
    format!(
        "to be made: {}, {} in all, in {}",
        match children.count() {
            1 => "1 child".to_owned(),
            more => format!("{more} children"),
        },
        human_bytes(bytes),
        counted(plan.sweeps().len() as u64, "sweep")
    )
}

fn table(results: &[JobResult], labels: &HashMap<usize, String>) -> String {
    let mut rows = vec![["merge", "result", "seconds", "output"].map(str::to_owned)];
    rows.extend(results.iter().map(|result| {
        let outputs: Vec<String> =
            result.outputs.iter().map(|output| escape(&output.0.to_string_lossy())).collect();
        [
            labels.get(&result.job).cloned().unwrap_or_default(),
            result.result.name().to_owned(),
            match result.result {
                Status::Merged | Status::Failed => format!("{:.1}", result.seconds),
                _ => String::new(),
            },
            outputs.join(", "),
        ]
    }));
    print::table(&rows)
}
