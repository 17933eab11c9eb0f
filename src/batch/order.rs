//! The message to a sweep's process: what to merge, as one line of JSON on its stdin.

use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::batch::job::JobOptions;
use crate::batch::share::Part;
use crate::engine::{Interrupted, Job};

/// What a sweep's process is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Process id of the batch; the sweep ends when it is gone.
    pub batch_pid: i32,
    /// Model at t = 0. Not a `PathBuf`, which serde refuses to write where it is not UTF-8.
    pub primary: OsString,
    /// Model at t = 1.
    pub secondary: OsString,
    /// Everything else that is asked for, with each child.
    pub options: JobOptions,
    /// What the sweep may take of the machine.
    pub part: Part,
    /// Directory of each child.
    pub outputs: Vec<OsString>,
}

impl Order {
    /// The merge that is ordered.
    pub fn job(&self, interrupted: Interrupted) -> Job {
        let [primary, secondary] = [&self.primary, &self.secondary].map(Path::new);
        let outputs = self.outputs.iter().map(Into::into).collect();
        Job { outputs, ..self.options.job(primary, secondary, interrupted) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::batch::job::tests::options;
    use crate::format::{OpaqueName, OpaqueNames};
    use crate::merge::{Child, Filter};
    use crate::tensor::DType;

    #[test]
    fn an_order_is_one_line_that_is_read_as_it_was_written() {
        let mut options = options();
        let filters = [Filter::parse("mlp=0,0.7").unwrap()];
        options.merge.children = Child::each(&[0.1, 1.0 / 3.0], &filters);
        options.merge.dtype = Some(DType::BFloat16);
        options.opening.opaque = OpaqueNames::new([OpaqueName::parse("a.B").unwrap()]);
        let order = Order {
            batch_pid: 1,
            primary: OsString::from_vec(b"n\xffo\n".to_vec()),
            secondary: "b".into(),
            options,
            part: Part { threads: 3, sharers: 2 },
            outputs: vec!["c".into(), "d".into()],
        };
        let line = serde_json::to_string(&order).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
        // What the command line refuses can't come in this way.
        assert!(serde_json::from_str::<Order>(&line.replace("a.B", "os.system")).is_err());
    }
}
