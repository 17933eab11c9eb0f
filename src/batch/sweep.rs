//! Groups merges that share both parents and differ only in their children into sweeps, each of
//! which reads the parents once.

use std::path::{Path, PathBuf};

use crate::batch::job::{JobOptions, PlannedChild, PlannedJob};
use crate::batch::order::Order;
use crate::batch::share::Part;

/// Most children of one sweep: each keeps its weight files open.
const MOST_CHILDREN: usize = 16;

/// Merges that run together in one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// Positions of its merges in the manifest.
    pub jobs: Vec<usize>,
    /// Model at t = 0.
    pub primary: PathBuf,
    /// Model at t = 1.
    pub secondary: PathBuf,
    /// The options of its first merge; those of the others differ in their children only.
    pub options: JobOptions,
    /// The children to be made, each with the position of its merge.
    pub children: Vec<(usize, PlannedChild)>,
}

impl Sweep {
    /// The order to make every child, with these options and this part of the machine.
    pub(crate) fn order(&self, (mut options, part): (JobOptions, Part)) -> Order {
        options.merge.children = self.children.iter().map(|child| child.1.child.clone()).collect();
        Order {
            batch_pid: rustix::process::getpid().as_raw_pid(),
            primary: self.primary.clone().into(),
            secondary: self.secondary.clone().into(),
            options,
            part,
            outputs: self.children.iter().map(|child| child.1.output.clone().into()).collect(),
        }
    }

    /// A sweep of its own for each of its merges.
    pub(crate) fn split(self) -> Vec<Sweep> {
        let one = |job: &usize| Sweep {
            jobs: vec![*job],
            children: self.children.iter().filter(|child| child.0 == *job).cloned().collect(),
            primary: self.primary.clone(),
            secondary: self.secondary.clone(),
            options: self.options.clone(),
        };
        self.jobs.iter().map(one).collect()
    }
}

/// The sweeps that make all children that are missing, in the order of their first merges. A merge
/// is never split.
pub(crate) fn sweeps(jobs: &[PlannedJob]) -> Vec<Sweep> {
    let mut sweeps: Vec<(PathBuf, PathBuf, Sweep)> = Vec::new();
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    for job in jobs {
        let children: Vec<(usize, PlannedChild)> = job
            .children
            .iter()
            .filter(|child| !child.present)
            .map(|child| (job.index, child.clone()))
            .collect();
        if children.is_empty() {
            continue;
        }
        let (primary, secondary) = (real(&job.primary), real(&job.secondary));
        let known = sweeps.iter_mut().find(|(known_primary, known_secondary, sweep)| {
            *known_primary == primary
                && *known_secondary == secondary
                && sweep.options.differ_in_children_only(&job.options)
                && sweep.children.len() + children.len() <= MOST_CHILDREN
        });
        match known {
            Some((_, _, sweep)) => {
                sweep.jobs.push(job.index);
                sweep.children.extend(children);
            }
            None => {
                let sweep = Sweep {
                    jobs: vec![job.index],
                    primary: job.primary.clone(),
                    secondary: job.secondary.clone(),
                    options: job.options.clone(),
                    children,
                };
                sweeps.push((primary, secondary, sweep));
            }
        }
    }
    sweeps.into_iter().map(|(_, _, sweep)| sweep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::job::tests::options;
    use crate::merge::{Child, MergeOptions};

    fn job(index: usize, primary: &str, fsync: bool, t: &[f64]) -> PlannedJob {
        let merge = MergeOptions { children: Child::each(t, &[]), ..MergeOptions::default() };
        let child = |t: &f64| PlannedChild {
            child: Child::at(*t),
            output: PathBuf::from(format!("{index}-{t}")),
            bytes: 1,
            files: 1,
            present: *t == 1.0,
        };
        PlannedJob {
            index,
            name: None,
            primary: primary.into(),
            secondary: "b".into(),
            options: JobOptions { merge, fsync, ..options() },
            children: t.iter().map(child).collect(),
        }
    }

    const PART: Part = Part { threads: 1, sharers: 1 };

    #[test]
    fn merges_that_differ_in_t_only_are_one_sweep() {
        let jobs = [
            job(0, "a", true, &[0.1]),
            job(1, "c", true, &[0.1]),
            job(2, "a", true, &[0.2, 0.3, 1.0]),
            job(3, "a", false, &[0.1]),
            job(4, "a", true, &[1.0]),
        ];
        let found = sweeps(&jobs);
        let jobs: Vec<&[usize]> = found.iter().map(|sweep| sweep.jobs.as_slice()).collect();
        assert_eq!(jobs, [&[0, 2][..], &[1], &[3]]);
        let order = found[0].order((options(), PART));
        assert_eq!(order.options.merge.children, Child::each(&[0.1, 0.2, 0.3], &[]));
        assert_eq!(order.outputs, ["0-0.1", "2-0.2", "2-0.3"]);
        let alone = found[0].clone().split();
        assert_eq!(
            alone[1].order((options(), PART)).options.merge.children,
            Child::each(&[0.2, 0.3], &[])
        );
        assert_eq!(alone.len(), 2);
    }

    #[test]
    fn a_sweep_has_no_more_children_than_files_can_be_open() {
        let jobs: Vec<PlannedJob> = (0..40).map(|index| job(index, "a", true, &[0.5])).collect();
        let sizes: Vec<usize> = sweeps(&jobs).iter().map(|sweep| sweep.children.len()).collect();
        assert_eq!(sizes, [16, 16, 8]);
    }
}
