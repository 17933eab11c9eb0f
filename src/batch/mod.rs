//! Floor 6: runs the merges of a manifest. All are planned together, grouped into sweeps, and run,
//! each sweep in its own process.

mod clash;
mod events;
mod job;
mod manifest;
mod order;
mod outcome;
mod planning;
mod process;
mod record;
mod run;
mod share;
mod sweep;

pub use events::{Event, Failure};
pub use job::{JobOptions, PlannedChild, PlannedJob};
pub use manifest::{Entry, Manifest, OptionKind, OptionSpec, schema};
pub use order::Order;
pub use outcome::{JobResult, Status};
pub use planning::{BatchPlan, Finding, Resolved, Selection, plan};
pub use record::Record;
pub use run::{RunSettings, Watcher, run};
pub use share::Part;
pub use sweep::Sweep;
