//! Refuses parents with different numbers of layers, experts and the like, by the numbers in their
//! names.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Kind, Result};
use crate::merge::names::matching::Names;
use crate::merge::names::numbers::counts;
use crate::merge::pairs::mismatch::capped;
use crate::tensor::escape;

/// Refuses parents with different numbers of layers or experts: wherever the names of both are
/// numbered, the numbers must be the same.
pub(crate) fn check_depth(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    names: &Names,
) -> Result<()> {
    let (ours, theirs) = (counts(&names.child), counts(&names.theirs));
    let lines: Vec<String> = ours
        .iter()
        .filter_map(|(prefix, a)| {
            let b = theirs.get(prefix)?;
            (a != b).then(|| format!("{}.N: {} and {}", escape(prefix), a.len(), b.len()))
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Data, "the parents are of different sizes: their depths differ")
        .file(&secondary.path)
        .expected(
            format!("the layers of `{}`", primary.path.display()),
            format!(
                "{} (primary and secondary):{}",
                match lines.len() {
                    1 => "1 place that counts differently".to_owned(),
                    count => format!("{count} places that count differently"),
                },
                capped(&lines)
            ),
        )
        .with_hint("merge only checkpoints of one architecture and size"))
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::Checkpoint;
    use crate::merge::headers::Headers;
    use crate::merge::{MergeOptions, plan};

    #[test]
    fn every_place_that_counts_differently_is_told() {
        let parent = |layers: u64, experts: u64| {
            let layer = |headers: Headers, at| headers.f16(&format!("h.{at}.w"), &[9]);
            let expert = |headers: Headers, at| headers.f16(&format!("e.{at}.w"), &[9]);
            let headers = (0..layers).fold(Headers::new().f16("body.w", &[999]), layer);
            (0..experts).fold(headers, expert).open()
        };
        let said = |a: &Checkpoint, b: &Checkpoint| {
            plan(a, b, &MergeOptions::default()).map_or_else(|e| e.to_string(), |_| String::new())
        };
        for ((layers, experts), lines) in [
            ((3, 4), "1 place that counts differently (primary and secondary):\n  h.N: 2 and 3"),
            (
                (3, 5),
                "2 places that count differently (primary and secondary):\n  e.N: 4 and 5\n  h.N: 2 and 3",
            ),
            ((2, 4), ""),
            // What only one counts is no depth.
            ((2, 0), ""),
        ] {
            let text = said(&parent(2, 4), &parent(layers, experts));
            assert!(text.ends_with(lines) && lines.is_empty() == text.is_empty(), "{text}");
        }
    }
}
