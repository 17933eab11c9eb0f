//! Floor 4: executes merge plans, and verifies checkpoints. The only floor that calls libtorch.

mod contents;
mod cpu;
mod cuda;
mod device;
mod devices;
mod faults;
mod identity;
mod merge;
mod outputs;
mod prepared;
mod provenance;
mod read;
mod report;
mod reporter;
mod resume;
mod settings;
mod task;
mod torch;
mod verify;
mod workers;
mod write;

pub use contents::ContentSums;
pub use devices::{ComputeDevice, DeviceChoice, DeviceInfo, Devices, devices};
pub use merge::{Outcome, prepare, prepare_conversion, run};
pub use outputs::expand_outputs;
pub use prepared::{Interrupted, Job, Prepared};
pub use provenance::ChildState;
pub use report::{Counts, MergeReport, TensorReport};
pub use reporter::Reporter;
pub use settings::Settings;
pub use verify::check::{Verified, VerifySettings, verify};
pub use workers::execute;
