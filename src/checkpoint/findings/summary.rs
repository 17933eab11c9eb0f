//! Words the last line of the check of a checkpoint.

use crate::checkpoint::findings::finding::{Finding, Severity};
use crate::tensor::{counted, human_bytes};

/// The last line of a check: what was checked, or how much is wrong.
pub fn summary(findings: &[Finding], tensors: usize, bytes: u64) -> String {
    let count = |severity| findings.iter().filter(|found| found.severity() == severity).count();
    let some = |count: usize, word: &str| (count > 0).then(|| counted(count as u64, word));
    let warnings = some(count(Severity::Warning), "warning");
    if let Some(errors) = some(count(Severity::Error), "error") {
        let both: Vec<String> = std::iter::once(errors).chain(warnings).collect();
        return format!("not whole: {}", both.join(", "));
    }
    let bare = |found: &Finding| {
        use Finding::{Legacy, Safetensors, Unchecked};
        matches!(found, Unchecked { .. } | Legacy { .. } | Safetensors { .. })
    };
    let unchecked = findings.iter().any(bare);
    let checked = if unchecked { "CRCs not all there" } else { "every CRC checked" };
    let unexamined = findings.iter().any(|found| matches!(found, Finding::Unexamined { .. }));
    let finite = if unexamined { "all that was looked at finite" } else { "all finite" };
    let counted_tensors = some(tensors, "tensor").unwrap_or_else(|| "no tensors".to_owned());
    let mut text = format!("whole: {counted_tensors}, {}, {checked}, {finite}", human_bytes(bytes));
    if let Some(warnings) = warnings {
        text.push_str(&format!("; {warnings}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_errors_or_says_what_was_looked_at() {
        let no_crc = Finding::Legacy { file: "a.bin".into(), refused: false };
        assert_eq!(
            summary(&[], 201, 2_200_000_000),
            "whole: 201 tensors, 2.2 GB, every CRC checked, all finite"
        );
        assert_eq!(
            summary(&[no_crc.clone(), Finding::NoConfig], 1, 8),
            "whole: 1 tensor, 8 B, CRCs not all there, all finite; 1 warning"
        );
        let token = Finding::TokenId { file: "vocab.json".into(), id: 9, rows: 9 };
        assert_eq!(
            summary(&[token, no_crc, Finding::NoConfig], 1, 8),
            "not whole: 1 error, 1 warning"
        );
    }
}
