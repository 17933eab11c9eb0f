//! Merges that share both parents and every option but t run together: the parents are read once.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::batch::job::{PlannedChild, PlannedJob};

/// Children of one sweep at most: each keeps weight files open.
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
    /// Options of merge but t, as arguments.
    pub arguments: Vec<OsString>,
    /// The children to be made, by position of their merge.
    pub children: Vec<(usize, PlannedChild)>,
}

impl Sweep {
    /// The arguments of merge: these options, every t, both parents.
    pub(crate) fn merge_arguments(&self, options: Vec<OsString>) -> Vec<OsString> {
        let t: Vec<String> = self.children.iter().map(|child| child.1.t.to_string()).collect();
        let mut arguments = options;
        arguments.push(OsString::from(format!("--t={}", t.join(","))));
        arguments.push("--".into());
        arguments.push(self.primary.clone().into_os_string());
        arguments.push(self.secondary.clone().into_os_string());
        arguments
    }

    /// One sweep for each of its merges.
    pub(crate) fn split(self) -> Vec<Sweep> {
        let one = |job: &usize| Sweep {
            jobs: vec![*job],
            children: self.children.iter().filter(|child| child.0 == *job).cloned().collect(),
            primary: self.primary.clone(),
            secondary: self.secondary.clone(),
            arguments: self.arguments.clone(),
        };
        self.jobs.iter().map(one).collect()
    }
}

/// Sweeps of the merges that have something to do, in the order of their first merges. A merge is
/// never split.
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
                && sweep.arguments == job.arguments
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
                    arguments: job.arguments.clone(),
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

    fn job(index: usize, primary: &str, arguments: &[&str], t: &[f64]) -> PlannedJob {
        let child = |t: &f64| PlannedChild {
            t: *t,
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
            arguments: arguments.iter().map(OsString::from).collect(),
            children: t.iter().map(child).collect(),
        }
    }

    #[test]
    fn merges_that_differ_in_t_only_are_one_sweep() {
        let jobs = [
            job(0, "a", &[], &[0.1]),
            job(1, "c", &[], &[0.1]),
            job(2, "a", &[], &[0.2, 0.3, 1.0]),
            job(3, "a", &["--x"], &[0.1]),
            job(4, "a", &[], &[1.0]),
        ];
        let found = sweeps(&jobs);
        let jobs: Vec<&[usize]> = found.iter().map(|sweep| sweep.jobs.as_slice()).collect();
        assert_eq!(jobs, [&[0, 2][..], &[1], &[3]]);
        assert_eq!(found[0].merge_arguments(vec![]), ["--t=0.1,0.2,0.3", "--", "a", "b"]);
        let alone = found[0].clone().split();
        assert_eq!(alone[1].merge_arguments(vec![]), ["--t=0.2,0.3", "--", "a", "b"]);
        assert_eq!(alone.len(), 2);
    }

    #[test]
    fn a_sweep_has_no_more_children_than_files_can_be_open() {
        let jobs: Vec<PlannedJob> = (0..40).map(|index| job(index, "a", &[], &[0.5])).collect();
        let sizes: Vec<usize> = sweeps(&jobs).iter().map(|sweep| sweep.children.len()).collect();
        assert_eq!(sizes, [16, 16, 8]);
    }
}
