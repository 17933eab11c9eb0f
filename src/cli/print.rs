//! Prints everything that the tool prints: results on stdout, messages for people on stderr.

use std::ffi::OsStr;
use std::io::Write;

use serde::Serialize;
use serde_json::json;

use crate::engine::{MergeReport, Prepared};
use crate::error::{Error, Kind, Result};
use crate::merge::{Action, EdgeRows, MergePlan, Warning};
use crate::tensor::{JsonPath, counted, escape, human_bytes};

/// An error with its hint and what it leaves; with `--json` the same fields as one object on stdout.
pub(crate) fn error(error: &Error, as_json: bool) {
    line(&format!("error: {error}"));
    if let Some(hint) = error.hint() {
        line(&format!("hint: {hint}"));
    }
    for path in error.left() {
        line(&format!("left on disk: {}", escape(&path.to_string_lossy())));
    }
    if as_json {
        let object = json!({
            "error": {
                "message": error.to_string(),
                "hint": error.hint(),
                "file": error.path().map(JsonPath::from),
                "tensor": error.tensor_name(),
                "left_on_disk": JsonPath::list(error.left()),
                "exit_code": error.kind().exit_code(),
            }
        });
        // Where stdout fails too, there is no place left to report it.
        let _ = result(&object.to_string());
    }
}

/// One warning on stderr.
pub(crate) fn warning(warning: &Warning) {
    line(&format!("warning: {warning}"));
}

/// One line on stderr. A full or closed stderr is no reason to stop a merge.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// One value as pretty JSON on stdout.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        Error::new(Kind::Internal, "cannot make JSON").expected("", error.to_string())
    })?;
    result(&text)
}

/// A result on stdout. A reader that has gone away (`| head`) is not an error.
pub(crate) fn result(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Io, "cannot write to stdout").expected("", error.to_string()))
        }
        _ => Ok(()),
    }
}

/// The plan as a table: one line per tensor, then what the child is.
pub(crate) fn plan_table(plan: &MergePlan, place: &str) -> String {
    let mut rows = vec![[
        "tensor".to_owned(),
        "dtype".to_owned(),
        "shape".to_owned(),
        "action".to_owned(),
        "t".to_owned(),
        "shard".to_owned(),
    ]];
    let mut shard_of = vec![0usize; plan.tensors.len()];
    for (shard, planned) in plan.shards.iter().enumerate() {
        for tensor in &planned.tensors {
            shard_of[*tensor] = shard + 1;
        }
    }
    let mut first = vec![true; plan.storages.len()];
    for (position, tensor) in plan.tensors.iter().enumerate() {
        let storage = &plan.storages[tensor.storage];
        let mut action = match storage.action {
            Action::Slerp => "slerp".to_owned(),
            Action::Linear => "linear".to_owned(),
            Action::CopyPrimary => "copy primary".to_owned(),
            Action::CopySecondary => "copy secondary".to_owned(),
            Action::Copy => "copy".to_owned(),
        };
        if let Some(extension) = storage.extension {
            let side = extension.side.name();
            let added = extension.to_rows - extension.from_rows;
            let lines = if extension.axis == 0 { "rows" } else { "columns" };
            action.push_str(&format!(", {side} +{added} {lines}"));
        }
        if let Some(rows) = &storage.by_word {
            let lines = if rows.axis == 0 { "rows" } else { "columns" };
            action.push_str(&format!(", {} {lines} by word", rows.by.rows));
        }
        let mut t = storage.t.iter().map(|t| short(*t)).collect::<Vec<_>>().join(", ");
        if !std::mem::replace(&mut first[tensor.storage], false) {
            action = format!("tied to {}", escape(&storage.name));
            t.clear();
        }
        rows.push([
            escape(&tensor.name),
            storage.dtype.to_string(),
            format!("{:?}", storage.shape),
            action,
            t,
            shard_of[position].to_string(),
        ]);
    }
    let mut text = table(&rows);
    text.push_str(&format!(
        "\n{}, {} in {}: {place}",
        counted(plan.tensors.len() as u64, "tensor"),
        human_bytes(plan.total_size),
        shards(plan.shards.len()),
    ));
    if let Some((vocab, child)) = plan.vocab.zip(plan.child_rows()) {
        text.push_str(&format!(
            "\nvocabulary: {} in the primary, {} in the secondary, {} in the child",
            counted(vocab.primary, "row"),
            vocab.secondary,
            child
        ));
    }
    if let Some(words) = &plan.words {
        text.push_str(&format!("\nwords: {}", words.sentence()));
    }
    if let Some(by) = &plan.by_word {
        text.push_str(&format!("\nby word: {}", by.sentence()));
    }
    for edges in edges(plan) {
        text.push_str(&format!("\nedge rows: {}", edges.sentence()));
    }
    text
}

/// `1 file`, `2 shards`.
pub(crate) fn shards(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} shards") }
}

/// A word, quoted where a shell needs that.
pub(crate) fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./,@%+=:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A number with four decimals at most.
fn short(t: f64) -> String {
    let text = format!("{t:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The edge rows of the extension, or of each parent whose rows by word are not all there.
fn edges(plan: &MergePlan) -> impl Iterator<Item = &EdgeRows> {
    let by_word = plan.by_word.iter().flat_map(|by| by.edges.iter().flatten());
    plan.edges.iter().chain(by_word.filter(|edges| edges.are_used()))
}

/// The plan in a few lines: what is merged into what, and how.
pub(crate) fn plan_brief(prepared: &Prepared, place: &str) -> String {
    let plan = &prepared.plan;
    let made = |wanted: Action| plan.storages.iter().filter(|s| s.action == wanted).count();
    let mut tensors = format!("{}: {} slerp", plan.tensors.len(), made(Action::Slerp));
    let copied = made(Action::CopyPrimary) + made(Action::CopySecondary);
    for (count, word) in [
        (made(Action::Linear), "linear"),
        (copied, "copied"),
        (plan.tensors.len() - plan.storages.len(), "tied"),
    ] {
        if count > 0 {
            tensors.push_str(&format!(", {count} {word}"));
        }
    }
    let path = |path: &std::path::Path| escape(&path.to_string_lossy());
    let t: Vec<String> =
        plan.options.children.iter().map(|child| child.schedule.to_string()).collect();
    let plain = plan.options.children.iter().all(|child| child.schedule.filters.is_empty());
    let mut rows = vec![
        ["primary".to_owned(), path(&prepared.primary.path)],
        ["secondary".to_owned(), path(&prepared.secondary.path)],
        ["t".to_owned(), t.join(if plain { ", " } else { "; " })],
        [
            if t.len() == 1 { "child" } else { "children" }.to_owned(),
            format!(
                "{place}, {} in {}",
                human_bytes(prepared.weight_bytes),
                shards(plan.shards.len())
            ),
        ],
        ["tensors".to_owned(), tensors],
    ];
    if let Some(vocab) = plan.vocab {
        let by_word = plan.by_word.is_some();
        let rows_of = |rows: u64| match vocab.child() - rows {
            _ if by_word => counted(rows, "row"),
            0 => counted(rows, "row"),
            added => format!("{rows} + {added} rows"),
        };
        let words = match vocab.differs() {
            true => format!(
                "{} in the primary, {} in the secondary (--extend {})",
                rows_of(vocab.primary),
                rows_of(vocab.secondary),
                plan.options.extend.name()
            ),
            false => rows_of(vocab.primary),
        };
        rows.push(["vocabulary".to_owned(), words]);
    }
    if let Some(words) = &plan.words {
        rows.push(["words".to_owned(), words.sentence()]);
    }
    if let Some(by) = &plan.by_word {
        rows.push(["by word".to_owned(), by.sentence()]);
    }
    for edges in edges(plan) {
        rows.push(["edge rows".to_owned(), edges.sentence()]);
    }
    if let Some(reason) = &prepared.side_files.tokenizer_reason {
        rows.push(["tokenizer".to_owned(), reason.clone()]);
    }
    if let Some(names) = &prepared.side_files.left_behind {
        rows.push(["left behind".to_owned(), names.clone()]);
    }
    table(&rows)
}

/// Width in columns of the terminal at stderr; 80 where it is unknown.
pub(crate) fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map(|size| usize::from(size.ws_col)).ok().filter(|columns| *columns > 0).unwrap_or(80)
}

/// Left-aligned columns, two spaces apart.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0usize; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines = rows.iter().map(|row| {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            line.push_str(cell);
            if column + 1 < N {
                let gap = width - cell.chars().count() + 2;
                line.extend(std::iter::repeat_n(' ', gap));
            }
        }
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What a merge did, in two lines.
pub(crate) fn summary(plan: &MergePlan, report: &MergeReport, place: &str, seconds: f64) -> String {
    let counts = report.counts();
    let mut text = format!(
        "merged {} ({}) in {} into {place}: {} slerp, {} lerp, {} copied",
        counted(plan.tensors.len() as u64, "tensor"),
        human_bytes(plan.total_size),
        shards(plan.shards.len()),
        counts.slerp,
        counts.lerp,
        counts.carried,
    );
    let tied = plan.tensors.len() - plan.storages.len();
    if tied > 0 {
        text.push_str(&format!(", {tied} tied"));
    }
    if counts.rows_added > 0 {
        text.push_str(&format!("; {} added", counted(counts.rows_added, "vocabulary row")));
    }
    if let (Some(smallest), Some(largest)) = (counts.smallest_angle, counts.largest_angle) {
        text.push_str(&format!("; angles {smallest:.2}° to {largest:.2}°"));
    }
    text.push_str(&speed(report, seconds));
    text
}

/// What a conversion did.
pub(crate) fn converted(
    plan: &MergePlan,
    report: &MergeReport,
    place: &str,
    seconds: f64,
) -> String {
    let shards = plan.shards.len();
    format!(
        "wrote {} ({}) in {shards} {} of {} into {place}{}",
        counted(plan.tensors.len() as u64, "tensor"),
        human_bytes(plan.total_size),
        if shards == 1 { "file" } else { "shards" },
        plan.format.name(),
        speed(report, seconds)
    )
}

/// The last line of a summary.
fn speed(report: &MergeReport, seconds: f64) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shown with one decimal"
    )]
    let rate = ((report.bytes_read + report.bytes_written) as f64 / seconds.max(1e-6)) as u64;
    format!(
        "\n{seconds:.1} s on {}, {} read and {} written, {}/s",
        escape(&report.devices.join(", ")),
        human_bytes(report.bytes_read),
        human_bytes(report.bytes_written),
        human_bytes(rate)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_so_that_a_shell_gives_them_back() {
        let words = ["models/a-1.5", "child-{t}", "it's mine", "", "a b"];
        let quoted: Vec<String> = words.iter().map(|word| quoted(word.as_ref())).collect();
        assert_eq!(quoted, ["models/a-1.5", "'child-{t}'", r"'it'\''s mine'", "''", "'a b'"]);
        let script = format!("printf '%s\\n' {}", quoted.join(" "));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), words.join("\n") + "\n");
    }
}
