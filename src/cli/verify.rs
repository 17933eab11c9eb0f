//! `verify`: checks whether a checkpoint is whole and finite. Prints one line per finding, then a
//! summary.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::checkpoint::{Finding, Severity, summary};
use crate::cli::args::{OutputArgs, VerifyArgs};
use crate::cli::interrupt::Interrupt;
use crate::cli::{merge, print, progress};
use crate::engine::{Verified, VerifySettings, verify as look_at};
use crate::error::{Kind, Result};
use crate::tensor::{JsonPath, escape};

/// Checks each model and prints its findings; returns the kind of error where one is not whole.
pub(crate) fn verify(args: &VerifyArgs, output: &OutputArgs) -> Result<Option<Kind>> {
    let interrupt = Interrupt::listen();
    let interrupted = || interrupt.error();
    let threads = args.threads.map_or_else(merge::cores, usize::from);
    let settings =
        VerifySettings { threads, opening: (&args.strict).into(), interrupted: &interrupted };
    let mut models = Vec::new();
    for path in &args.models {
        let reporter = progress::named(!output.quiet && !output.no_progress, "verifying");
        let verified = look_at(path, &settings, reporter.as_ref())?;
        if !output.json {
            print::result(&text(&verified, output.quiet, args.models.len() > 1))?;
        }
        models.push(verified);
    }
    if output.json {
        print::json(&json!({ "models": models.iter().map(model).collect::<Vec<_>>() }))?;
    }
    let kinds = || models.iter().filter_map(Verified::kind);
    Ok(kinds().find(|kind| *kind == Kind::Data).or_else(|| kinds().next()))
}

/// The findings, only errors with `quiet`, and the summary, which names the model with `with_path`.
fn text(verified: &Verified, quiet: bool, with_path: bool) -> String {
    let shown = |finding: &&Finding| !quiet || finding.severity() == Severity::Error;
    let mut lines: Vec<String> = Vec::new();
    let mut last_hint = None;
    for finding in verified.findings.iter().filter(shown) {
        lines.push(format!("{}: {finding}", finding.severity().name()));
        // A hint that several findings share is given once.
        if let Some(hint) = finding.hint().filter(|hint| last_hint != Some(*hint)) {
            lines.push(format!("hint: {hint}"));
            last_hint = Some(hint);
        }
    }
    let summary = summary(&verified.findings, verified.tensors, verified.bytes);
    lines.push(match with_path {
        true => format!("{}: {summary}", escape(&verified.path.to_string_lossy())),
        false => summary,
    });
    lines.join("\n")
}

fn model(verified: &Verified) -> Value {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for finding in &verified.findings {
        *counts.entry(finding.severity().name()).or_default() += 1;
    }
    let count = |severity: Severity| counts.get(severity.name()).copied().unwrap_or(0);
    let nonfinite = |finding: &Finding| match finding {
        Finding::NonFinite { tensor, count, first, elements, .. } => Some(json!({
            "tensor": tensor, "count": count, "first": first, "elements": elements,
        })),
        _ => None,
    };
    json!({
        "path": JsonPath::from(&verified.path),
        "whole": verified.is_whole(),
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
        "findings": verified.findings.iter().map(finding).collect::<Vec<_>>(),
        "tensors": verified.tensors,
        "bytes": verified.bytes,
        "nonfinite": verified.findings.iter().filter_map(nonfinite).collect::<Vec<_>>(),
    })
}

/// The severity of a finding, its own fields, and its message.
fn finding(finding: &Finding) -> Value {
    let mut object = json!({ "severity": finding.severity() });
    if let (Value::Object(all), Ok(Value::Object(own))) =
        (&mut object, serde_json::to_value(finding))
    {
        all.extend(own);
        all.insert("message".to_owned(), json!(finding.to_string()));
    }
    object
}
