//! Which rows of a parent become which rows of the child.

/// Consecutive rows of the child that are consecutive in a parent, or that it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRun {
    /// The first row in the child.
    pub start: u64,
    /// How many.
    pub rows: u64,
    /// The first row in the parent; `None` where it lacks them.
    pub from: Option<u64>,
    /// Rows that it lacks before these.
    pub missing_before: u64,
}

/// The rows of the child as runs of one parent's rows, in the child's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMap {
    runs: Vec<RowRun>,
    /// Rows of the parent.
    own: u64,
    /// Rows of the child.
    rows: u64,
    missing: u64,
}

impl RowMap {
    /// Of each row of the child, the parent's row or none; `own` is how many rows the parent has.
    pub fn new(sources: impl Iterator<Item = Option<u64>>, own: u64) -> RowMap {
        let mut map = RowMap { runs: Vec::new(), own, rows: 0, missing: 0 };
        for source in sources {
            let goes_on = map.runs.last_mut().filter(|run| match (run.from, source) {
                (Some(from), Some(source)) => from + run.rows == source,
                (None, None) => true,
                _ => false,
            });
            match goes_on {
                Some(run) => run.rows += 1,
                None => map.runs.push(RowRun {
                    start: map.rows,
                    rows: 1,
                    from: source,
                    missing_before: map.missing,
                }),
            }
            map.rows += 1;
            map.missing += u64::from(source.is_none());
        }
        map
    }

    /// The first `own` rows in place, and those up to `rows` missing.
    pub fn extended(own: u64, rows: u64) -> RowMap {
        let (first, added) = (
            RowRun { start: 0, rows: own, from: Some(0), missing_before: 0 },
            RowRun { start: own, rows: rows - own, from: None, missing_before: 0 },
        );
        let runs = [first, added].into_iter().filter(|run| run.rows > 0).collect();
        RowMap { runs, own, rows, missing: rows - own }
    }

    /// The runs, in the child's order.
    pub fn runs(&self) -> &[RowRun] {
        &self.runs
    }

    /// Rows of the parent.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// Rows of the child.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows of the child that the parent lacks.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Whether the child's rows are the parent's, each in its place.
    pub fn is_identity(&self) -> bool {
        self.missing == 0 && self.own == self.rows && self.is_in_order()
    }

    /// Whether the child has all of the parent's rows, in their order.
    pub fn is_in_order(&self) -> bool {
        let mut next = 0;
        let runs = self.runs.iter().filter_map(|run| Some((run.from?, run.rows)));
        let in_order = runs.into_iter().all(|(from, rows)| {
            let follows = from == next;
            next = from.saturating_add(rows);
            follows
        });
        in_order && next == self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_follow_each_other_are_one_run() {
        let of = |rows: &[Option<u64>], own| RowMap::new(rows.iter().copied(), own);
        let run = |start, rows, from, missing_before| RowRun { start, rows, from, missing_before };
        let map = of(&[Some(0), Some(1), None, Some(2), None, None, Some(5)], 6);
        assert_eq!(
            map.runs(),
            [
                run(0, 2, Some(0), 0),
                run(2, 1, None, 0),
                run(3, 1, Some(2), 1),
                run(4, 2, None, 1),
                run(6, 1, Some(5), 3)
            ]
        );
        assert_eq!((map.rows(), map.own(), map.missing()), (7, 6, 3));
        assert!(!map.is_in_order() && !map.is_identity());
        assert!(of(&[Some(0), None, Some(1)], 2).is_in_order());
        assert!(of(&[Some(0), Some(1)], 2).is_identity());
        assert!(!of(&[Some(0), Some(1)], 3).is_identity());
        assert!(!of(&[Some(1), Some(0)], 2).is_in_order());
        let extended = of(&[Some(0), Some(1), None], 2);
        assert_eq!(RowMap::extended(2, 3), extended);
        assert_eq!(RowMap::extended(0, 1), of(&[None], 0));
        assert!(RowMap::extended(2, 2).is_identity());
    }
}
